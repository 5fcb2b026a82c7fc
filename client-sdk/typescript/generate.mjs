// Writes `src/gen` from the protos of the repository: `npm run generate`. `test/generated.test.ts` keeps it fresh.
import { spawnSync } from "node:child_process";
import { rmSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const root = join(here, "../..");
const buf = join(root, "tests/tools/node_modules/.bin/buf");

/** Generates into this folder, which it empties before. */
export function generate(out) {
  rmSync(out, { recursive: true, force: true });
  const plugin = {
    local: join(here, "node_modules/.bin/protoc-gen-es"),
    out,
    opt: ["target=ts", "import_extension=js"],
  };
  const template = JSON.stringify({ version: "v2", plugins: [plugin] });
  const ended = spawnSync(buf, ["generate", "--template", template], { cwd: root, encoding: "utf8" });
  if (ended.status !== 0) {
    throw new Error(`buf generate failed: ${ended.error ?? ended.stderr}`);
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  generate(join(here, "src/gen"));
}
