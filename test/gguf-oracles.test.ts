import { readdirSync } from "node:fs";
import { join } from "node:path";
import { oracle, readLines, scratch } from "@tempora/testing";
import { expect, test } from "vitest";
import { temporaJson } from "./support/cli.ts";

interface Scored {
  prompt_ids: number[];
  completion_ids: number[];
  completion_logprobs: number[];
}

const names = readdirSync(oracle("gguf"))
  .filter((name) => name.endsWith(".gguf"))
  .map((name) => name.slice(0, -".gguf".length));

test("there are models of every architecture that is read", () => {
  for (const architecture of ["llama", "qwen2", "qwen3"]) {
    expect(names.some((name) => name.startsWith(architecture))).toBe(true);
  }
});

test.each(names)("log-probs of %s.gguf are those of transformers, from the file and from its folder", async (name) => {
  const folder = await scratch();
  const file = oracle("gguf", `${name}.gguf`);
  const data = oracle("gguf", `${name}.jsonl`);
  await temporaJson(["export", "--model", file, "--out", join(folder, "hf"), "--type", "f32"]);
  for (const model of [file, join(folder, "hf")]) {
    const out = join(folder, "logprobs.jsonl");
    await temporaJson(["logprobs", "--model", model, "--data", data, "--out", out, "--dtype", "f32"]);
    const rows = readLines<Scored>(out);
    for (const [i, truth] of readLines<Scored>(data).entries()) {
      const mine = rows[i]!.completion_logprobs;
      expect(mine.length).toBe(truth.completion_logprobs.length);
      const worst = Math.max(...mine.map((value, k) => Math.abs(value - truth.completion_logprobs[k]!)));
      expect(worst).toBeLessThan(1e-4);
    }
  }
});
