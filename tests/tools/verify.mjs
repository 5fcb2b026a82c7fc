// Checks webhook signatures the way a receiver written in JavaScript does, with the published Standard Webhooks library.
//
// Reads one JSON object per line: {"body": text, "headers": {name: value}, "secret": text}. Answers each with one line:
// {"standard": boolean}.

import { createInterface } from "node:readline";
import { Webhook } from "standardwebhooks";

function accepts({ body, headers, secret }) {
  try {
    new Webhook(secret).verify(body, headers);
    return true;
  } catch (error) {
    console.error(`standardwebhooks: ${error.name}: ${error.message}`);
    return false;
  }
}

for await (const line of createInterface({ input: process.stdin, crlfDelay: Infinity })) {
  if (line.trim() === "") continue;
  console.log(JSON.stringify({ standard: accepts(JSON.parse(line)) }));
}
