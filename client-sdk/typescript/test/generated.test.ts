// The committed code is what the protos say. `npm run generate` writes it anew.
import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

const root = join(dirname(fileURLToPath(import.meta.url)), "../..");

function tree(folder: string): Map<string, string> {
  const files = readdirSync(folder, { recursive: true, encoding: "utf8" }).filter((name) => name.endsWith(".ts"));
  return new Map(files.sort().map((name) => [name, readFileSync(join(folder, name), "utf8")]));
}

test("the generated code is fresh", async () => {
  const { generate } = (await import(join(root, "generate.mjs"))) as { generate: (out: string) => void };
  const fresh = mkdtempSync(join(tmpdir(), "switchboard-gen-"));
  try {
    generate(fresh);
    const [committed, generated] = [tree(join(root, "src/gen")), tree(fresh)];
    assert.deepEqual([...committed.keys()], [...generated.keys()], "run `npm run generate`");
    for (const [name, text] of generated) {
      assert.ok(committed.get(name) === text, `${name} is stale: run \`npm run generate\``);
    }
  } finally {
    rmSync(fresh, { recursive: true, force: true });
  }
});
