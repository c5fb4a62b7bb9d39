import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { openCheckpoint, saveCheckpoint } from "@tempora/models";
import { families, olderReference, oracle, readJson, readLines, scratch } from "@tempora/testing";
import { describe, expect, test } from "vitest";
import { tempora, temporaJson } from "./support/cli.ts";

const folder = await scratch();
/** Of every oracle's tokenizer. */
const endToken = 2;

interface OracleRow {
  prompt_ids: number[];
  chosen_ids: number[];
  rejected_ids: number[];
  chosen_logprobs: number[];
  rejected_logprobs: number[];
  chosen_sum: number;
  rejected_sum: number;
  chosen_reference_sum: number;
  rejected_reference_sum: number;
}

interface LogProbRow {
  prompt: unknown;
  chosen_logprobs: number[];
  rejected_logprobs: number[];
  chosen_sum: number;
  rejected_sum: number;
}

async function logProbs(model: string, data: string, ...options: string[]): Promise<LogProbRow[]> {
  const out = join(folder, `logprobs-${Math.random().toString(36).slice(2)}.jsonl`);
  await temporaJson(["logprobs", "--model", model, "--data", data, "--out", out, ...options]);
  return readLines<LogProbRow>(out);
}

function largestDifference(a: readonly number[], b: readonly number[]): number {
  expect(a.length).toBe(b.length);
  return a.reduce((worst, value, index) => Math.max(worst, Math.abs(value - (b[index] as number))), 0);
}

describe.each(families)("%s through the commands", (family) => {
  const expected = readLines<OracleRow>(oracle(family, "logprobs.jsonl"));

  test("logprobs agrees with transformers on conversations", async () => {
    const rows = await logProbs(oracle(family, "policy"), oracle("preference.jsonl"));
    expect(rows.length).toBe(24);
    rows.forEach((row, index) => {
      const truth = expected[index] as OracleRow;
      expect(largestDifference(row.chosen_logprobs, truth.chosen_logprobs)).toBeLessThan(1e-4);
      expect(largestDifference(row.rejected_logprobs, truth.rejected_logprobs)).toBeLessThan(1e-4);
      expect(Math.abs(row.chosen_sum - truth.chosen_sum)).toBeLessThan(1e-2);
      expect(Math.abs(row.rejected_sum - truth.rejected_sum)).toBeLessThan(1e-2);
    });
  });

  test("logprobs of the reference agrees, from token ids as well", async () => {
    const ids = join(folder, `${family}-ids.jsonl`);
    const rows = expected.map(({ prompt_ids, chosen_ids, rejected_ids }) => ({ prompt_ids, chosen_ids, rejected_ids }));
    writeFileSync(ids, rows.map((row) => `${JSON.stringify(row)}\n`).join(""));
    const fromText = await logProbs(oracle(family, "reference"), oracle("preference.jsonl"));
    const fromIds = await logProbs(oracle(family, "reference"), ids);
    fromText.forEach((row, index) => {
      const truth = expected[index] as OracleRow;
      expect(Math.abs(row.chosen_sum - truth.chosen_reference_sum)).toBeLessThan(1e-2);
      expect(Math.abs(row.rejected_sum - truth.rejected_reference_sum)).toBeLessThan(1e-2);
      expect(fromIds[index]?.chosen_logprobs).toEqual(row.chosen_logprobs);
      expect(fromIds[index]?.rejected_logprobs).toEqual(row.rejected_logprobs);
    });
  });

  test("a bf16 checkpoint in shards with the older config gives what its values give in one f32 file", async () => {
    const shards = olderReference(family);
    const widened = join(folder, `${family}-widened`);
    await widen(shards, oracle(family, "reference"), widened);
    const fromShards = await logProbs(shards, oracle("preference.jsonl"), "--dtype", "f32");
    const fromWidened = await logProbs(widened, oracle("preference.jsonl"));
    const inBf16 = await logProbs(shards, oracle("preference.jsonl"));
    fromShards.forEach((row, index) => {
      const truth = expected[index] as OracleRow;
      expect(row.chosen_logprobs).toEqual(fromWidened[index]?.chosen_logprobs);
      expect(row.rejected_logprobs).toEqual(fromWidened[index]?.rejected_logprobs);
      // bf16 has 8 bits: the rounded weights are another, near model.
      expect(Math.abs(row.chosen_sum / truth.chosen_reference_sum - 1)).toBeLessThan(5e-3);
      expect(Math.abs((inBf16[index] as LogProbRow).chosen_sum / truth.chosen_reference_sum - 1)).toBeLessThan(1e-2);
    });
  });

  test.each(["sigmoid", "ipo"] as const)("dpo follows TRL's trajectory with the %s loss", async (loss) => {
    const trl = readJson<Record<typeof loss, Trajectory>>(oracle(family, "trl_trajectory.json"))[loss];
    const out = join(folder, `${family}-${loss}`);
    const metrics = join(folder, `${family}-${loss}.jsonl`);
    const training = ["--lr", "2e-3", "--warmup-steps", "3", "--weight-decay", "0.01", "--epochs", "2"];
    await temporaJson([
      ...["dpo", "--model", oracle(family, "reference"), "--data", oracle("preference.jsonl"), "--out", out],
      ...["--loss", loss, "--metrics", metrics, "--batch-pairs", "4", "--no-shuffle", ...training],
    ]);
    const steps = readLines<Step>(metrics);
    expect(steps.length).toBe(trl.steps.length);
    for (const [index, step] of steps.entries()) compareStep(step, trl.steps[index] as Step);
    const after = await logProbs(out, oracle("preference.jsonl"));
    after.forEach((row, index) => {
      const [chosen, rejected] = trl.logps_after_training[index] as [number, number];
      expect(Math.abs(row.chosen_sum / chosen - 1)).toBeLessThan(2e-2);
      expect(Math.abs(row.rejected_sum / rejected - 1)).toBeLessThan(2e-2);
    });
  });

  test("sft takes the step that transformers takes", async () => {
    const truth = readJson<{ loss: number; tokens: number; grad_norm: number }>(oracle(family, "sft_step.json"));
    const data = join(folder, `${family}-sft.jsonl`);
    const rows = readLines<{ prompt: unknown; chosen: unknown }>(oracle("preference.jsonl")).slice(0, 4);
    writeFileSync(
      data,
      rows.map(({ prompt, chosen }) => `${JSON.stringify({ prompt, completion: chosen })}\n`).join(""),
    );
    const metrics = join(folder, `${family}-sft-metrics.jsonl`);
    const out = join(folder, `${family}-sft`);
    const model = oracle(family, "policy");
    await temporaJson([
      "sft",
      "--model",
      model,
      "--data",
      data,
      "--out",
      out,
      "--metrics",
      metrics,
      "--batch-pairs",
      "4",
    ]);
    const [step, ...others] = readLines<Step>(metrics);
    expect(others).toEqual([]);
    expect(Math.abs((step as Step).loss / truth.loss - 1)).toBeLessThan(1e-4);
    expect(Math.abs((step as Step).grad_norm / truth.grad_norm - 1)).toBeLessThan(1e-3);
  });

  test("generate is greedy at temperature 0", async () => {
    const truth = readLines<Greedy>(oracle(family, "greedy.jsonl"));
    const data = join(folder, `${family}-prompts.jsonl`);
    writeFileSync(data, truth.map(({ prompt_ids }) => `${JSON.stringify({ prompt_ids })}\n`).join(""));
    const out = join(folder, `${family}-greedy.jsonl`);
    const model = oracle(family, "policy");
    const sampling = ["--temperature", "0", "--max-new-tokens", "32"];
    await temporaJson(["generate", "--model", model, "--data", data, "--out", out, ...sampling]);
    const rows = readLines<{ completions: { ids: number[]; logprobs: number[]; text: string }[] }>(out);
    expect(rows.length).toBe(truth.length);
    rows.forEach(({ completions }, index) => {
      const { completion_ids, smallest_top2_logit_gap } = truth[index] as Greedy;
      expect(completions.length).toBe(1);
      expect(completions[0]?.logprobs.length).toBe(completions[0]?.ids.length);
      // The oracle goes on behind an end token; a command stops there.
      const end = completion_ids.indexOf(endToken) + 1;
      const wanted = end === 0 ? completion_ids : completion_ids.slice(0, end);
      if (smallest_top2_logit_gap >= 1e-3) expect(completions[0]?.ids).toEqual(wanted);
    });
    const sure = truth.filter((row) => row.smallest_top2_logit_gap >= 1e-3);
    expect(sure.length).toBeGreaterThan(0);
  });
});

test("plain strings are joined as TRL joins them: the completion with its EOS", async () => {
  const rows = await logProbs(oracle("llama", "policy"), oracle("preference_plain.jsonl"));
  expect(rows.length).toBe(24);
  for (const row of rows) {
    const sum = row.chosen_logprobs.reduce((total, value) => total + value, 0);
    expect(Math.abs(sum - row.chosen_sum)).toBeLessThan(1e-3);
  }
});

test("dpo with --reference trains against that model", async () => {
  const truth = readJson<{ per_pair_loss: number[] }>(oracle("llama", "dpo_step.json"));
  const data = join(folder, "four.jsonl");
  const lines = readFileSync(oracle("preference.jsonl"), "utf8").split("\n").slice(0, 4);
  writeFileSync(data, `${lines.join("\n")}\n`);
  const metrics = join(folder, "reference-metrics.jsonl");
  const models = ["--model", oracle("llama", "policy"), "--reference", oracle("llama", "reference")];
  const files = ["--data", data, "--out", join(folder, "referenced"), "--metrics", metrics];
  await temporaJson(["dpo", ...models, ...files, "--batch-pairs", "4", "--beta", "0.1"]);
  const mean = truth.per_pair_loss.reduce((sum, loss) => sum + loss, 0) / truth.per_pair_loss.length;
  expect(Math.abs((readLines<Step>(metrics)[0] as Step).loss - mean)).toBeLessThan(1e-3 * mean);
});

test("samples have the length, the number and the seed that were asked for", async () => {
  const data = join(folder, "prompts.jsonl");
  writeFileSync(data, `${JSON.stringify({ prompt: [{ role: "user", content: "Count to three." }], kept: 1 })}\n`);
  const sample = async (seed: string, rows: string) => {
    const out = join(folder, `samples-${seed}-${rows}.jsonl`);
    const options = ["--n", "5", "--max-new-tokens", "9", "--seed", seed, "--max-rows", rows];
    await temporaJson(["generate", "--model", oracle("qwen3", "policy"), "--data", data, "--out", out, ...options]);
    return readLines<{ kept: number; completions: { ids: number[]; finish_reason: string }[] }>(out);
  };
  const [row] = await sample("1", "64");
  expect(row?.kept).toBe(1);
  expect(row?.completions.length).toBe(5);
  for (const { ids, finish_reason } of row?.completions ?? []) {
    expect(ids.length).toBeLessThanOrEqual(9);
    if (finish_reason === "length") expect(ids.length).toBe(9);
  }
  expect(await sample("1", "2")).toEqual([row]);
  expect((await sample("2", "64"))[0]?.completions).not.toEqual(row?.completions);
});

interface Step {
  loss: number;
  grad_norm: number;
  learning_rate: number;
  num_tokens: number;
  "rewards/margins": number;
  "rewards/accuracies": number;
  "logps/chosen": number;
  "logps/rejected": number;
  epoch: number;
  step: number;
}

interface Trajectory {
  steps: Step[];
  logps_after_training: [number, number][];
}

interface Greedy {
  prompt_ids: number[];
  completion_ids: number[];
  smallest_top2_logit_gap: number;
}

/** The first step is before any update, so that its figures are as near as single numbers are. */
function compareStep(step: Step, truth: Step): void {
  const difference = Math.abs(step.loss - truth.loss);
  expect(difference, `loss of step ${truth.step}`).toBeLessThanOrEqual(
    2e-3 * (Math.abs(truth.loss) < 0.05 ? 1 : Math.abs(truth.loss)),
  );
  expect(step.learning_rate).toBeCloseTo(truth.learning_rate, 9);
  expect(step.epoch).toBeCloseTo(truth.epoch, 6);
  expect(step.step).toBe(truth.step);
  expect(step.num_tokens).toBe(truth.num_tokens);
  if (truth.step === 1) {
    expect(Math.abs(step["logps/chosen"] - truth["logps/chosen"])).toBeLessThan(1e-2);
    expect(Math.abs(step["logps/rejected"] - truth["logps/rejected"])).toBeLessThan(1e-2);
    expect(Math.abs(step.grad_norm / truth.grad_norm - 1)).toBeLessThan(1e-3);
  }
}

/** The bf16 values of the shards as one f32 file beside the newer config. */
async function widen(shards: string, newer: string, target: string): Promise<void> {
  mkdirSync(target, { recursive: true });
  const source = await openCheckpoint(shards);
  const { config, raw } = await openCheckpoint(newer);
  const tensors = async function* () {
    for await (const { name, shape, read } of source.tensors()) {
      yield { name, shape, dtype: "f32" as const, bytes: widenBytes(await read()) };
    }
  };
  await saveCheckpoint(target, {
    config,
    raw,
    dtype: "f32",
    tensors: tensors(),
    companion: (await openCheckpoint(newer)).companion,
  });
}

function widenBytes(bytes: Uint8Array): Uint8Array {
  const wide = new Uint8Array(2 * bytes.length);
  for (let i = 0; i < bytes.length; i += 2) {
    wide[2 * i + 2] = bytes[i] as number;
    wide[2 * i + 3] = bytes[i + 1] as number;
  }
  return wide;
}

test("a command without a fault ends with 0 and says nothing but its result on standard output", async () => {
  const outcome = await tempora(["doctor", "--json"]);
  expect(outcome.code).toBe(0);
  const value = JSON.parse(outcome.stdout) as { runtime: string; addon: { cpuKernels: string; oneDnn: string } };
  expect(value.runtime).toBe(`Bun ${process.versions.bun}`);
  expect(value.addon.oneDnn).toMatch(/\d/);
});
