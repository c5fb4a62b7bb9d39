import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { openCheckpoint } from "@tempora/models";
import { describeRealModel, oracle, readJson, readLines, scratch } from "@tempora/testing";
import { Tokenizer } from "@tempora/text";
import { expect, test } from "vitest";
import { temporaJson } from "./support/cli.ts";

interface Row {
  prompt: unknown;
  completion: unknown;
  completion_ids: number[];
  completion_logprobs: number[];
  smallest_top2_logit_gap: number;
}

/** transformers was not told to stop: what it gave up to and with the token that ends a turn, <|im_end|>. */
function throughEnd(ids: number[]): number[] {
  const end = ids.indexOf(2);
  return end < 0 ? ids : ids.slice(0, end + 1);
}

describeRealModel("SmolLM2-135M-Instruct from its GGUF file", (file) => {
  test("splits hard texts as Python does", async () => {
    const { path, companion } = await openCheckpoint(file);
    const tokenizer = await Tokenizer.from(path, companion);
    for (const { text, ids } of readJson<{ text: string; ids: number[] }[]>(oracle("smollm2", "tokens.json"))) {
      expect(tokenizer.encode(text), JSON.stringify(text)).toEqual(ids);
    }
  });

  test("has transformers' log-probs and greedy answers, as a file and as an exported folder", async () => {
    const folder = await scratch();
    await temporaJson(["export", "--model", file, "--out", join(folder, "hf")]);
    const scored = readLines<Row>(oracle("smollm2", "logprobs.jsonl"));
    const greedy = readLines<Row>(oracle("smollm2", "greedy.jsonl"));
    const [data, prompts, out] = ["data.jsonl", "prompts.jsonl", "out.jsonl"].map((name) => join(folder, name)) as [
      string,
      string,
      string,
    ];
    const lines = (rows: object[]) => rows.map((row) => `${JSON.stringify(row)}\n`).join("");
    writeFileSync(data, lines(scored.map(({ prompt, completion }) => ({ prompt, completion }))));
    writeFileSync(prompts, lines(greedy.map(({ prompt }) => ({ prompt }))));
    for (const model of [file, join(folder, "hf")]) {
      await temporaJson(["logprobs", "--model", model, "--data", data, "--out", out]);
      for (const [i, { completion_logprobs: mine }] of readLines<Row>(out).entries()) {
        const truth = scored[i]!.completion_logprobs;
        expect(mine.length).toBe(truth.length);
        expect(Math.max(...mine.map((value, k) => Math.abs(value - truth[k]!)))).toBeLessThan(5e-4);
      }
      const length = ["--max-new-tokens", "40", "--temperature", "0"];
      await temporaJson(["generate", "--model", model, "--data", prompts, "--out", out, ...length]);
      for (const [i, row] of readLines<{ completions: { ids: number[] }[] }>(out).entries()) {
        const truth = greedy[i]!;
        if (truth.smallest_top2_logit_gap <= 1e-2) continue;
        expect(row.completions[0]!.ids).toEqual(throughEnd(truth.completion_ids));
      }
    }
  }, 300_000);

  test("trains on preferences as TRL does", async () => {
    const folder = await scratch();
    const { config, steps } = readJson<{
      config: Record<
        "learning_rate" | "beta" | "pairs_per_step" | "warmup_steps" | "weight_decay" | "max_grad_norm",
        number
      >;
      steps: Record<string, number>[];
    }>(oracle("smollm2", "trl_trajectory.json"));
    const metrics = join(folder, "metrics.jsonl");
    const flags = {
      lr: config.learning_rate,
      beta: config.beta,
      "batch-pairs": config.pairs_per_step,
      "warmup-steps": config.warmup_steps,
      "weight-decay": config.weight_decay,
      "max-grad-norm": config.max_grad_norm,
    };
    const options = Object.entries(flags).flatMap(([name, value]) => [`--${name}`, String(value)]);
    const files = ["--data", oracle("smollm2", "pairs.jsonl"), "--out", join(folder, "trained"), "--metrics", metrics];
    await temporaJson(["dpo", "--model", file, ...files, ...options, "--no-shuffle"]);
    const rows = readLines<Record<string, number>>(metrics);
    expect(rows.length).toBe(steps.length);
    for (const [i, truth] of steps.entries()) {
      expect(Math.abs(rows[i]!.loss! - truth.loss!)).toBeLessThan(1e-4);
      expect(Math.abs(rows[i]!.grad_norm! / truth.grad_norm! - 1)).toBeLessThan(1e-3);
      for (const side of ["logps/chosen", "logps/rejected"]) {
        expect(Math.abs(rows[i]![side]! - truth[side]!)).toBeLessThan(1e-2);
      }
    }
  }, 300_000);
});
