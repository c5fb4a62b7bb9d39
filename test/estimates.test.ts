import { existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { oracle, scratch } from "@tempora/testing";
import { expect, test } from "vitest";
import { tempora, temporaJson } from "./support/cli.ts";
import { tinyConfig } from "./support/tiny-run.ts";

const folder = await scratch();
const config = join(folder, "tiny.config.ts");
writeFileSync(config, `export default ${JSON.stringify(tinyConfig)};\n`);

test("train --dry-run prints tokens, time, memory and disk, and leaves run folder and store alone", async () => {
  const runs = join(folder, "runs");
  const command = ["train", config, "--runs", runs, "--dry-run"];
  const shown = await tempora(command);
  expect(shown.code).toBe(0);
  for (const word of ["temporal", "generate", "time", "training", "machine", "disk", "Taken for granted"]) {
    expect(shown.stdout).toContain(word);
  }
  const estimate = await temporaJson<{ dryRun: boolean; seconds: number; memory: { training: { total: number } } }>(
    command,
  );
  expect(estimate.dryRun).toBe(true);
  expect(estimate.seconds).toBeGreaterThan(0);
  expect(estimate.memory.training.total).toBeGreaterThan(2 ** 20);
  expect(existsSync(runs)).toBe(false);
}, 120_000);

/** "8474", "38.1k" and "12.3 MiB" as numbers. */
function numberOf(text: string): number {
  const [, digits = "", unit = ""] = /^([\d.]+) ?(\S*)$/.exec(text) ?? [];
  const units: Record<string, number> = { "": 1, k: 1e3, M: 1e6, B: 1, KiB: 2 ** 10, MiB: 2 ** 20, GiB: 2 ** 30 };
  return Number(digits) * (units[unit] ?? Number.NaN);
}

test("train --dry-run shows what it estimates: tokens by stage, all seeds, and what the machine lacks", async () => {
  const command = ["train", config, "--runs", join(folder, "shown"), "--dry-run", "--strategy", "temporal"];
  interface Estimate {
    seeds: number;
    stages: { strategy: string | null; kind: string; totals: Record<string, number> }[];
    disk: { total: number };
  }
  const { stages, disk } = await temporaJson<Estimate>(command);
  const { stdout } = await tempora([...command, "--seeds", "3", "--set", "generation.maxCacheTokens=1000000000000"]);
  const read = new Map(
    stdout
      .split("\n")
      .map((line) => line.split(/ {2,}/))
      .map((cells) => [`${cells[0]} ${cells.at(-6)}`, cells.at(-5) ?? ""]),
  );
  for (const { strategy, kind, totals } of stages) {
    const all = (totals.promptTokens ?? 0) + (totals.scoredTokens ?? 0);
    const shown = numberOf(read.get(`${strategy ?? "all"} ${kind}`) ?? "");
    expect(Math.abs(shown - all), kind).toBeLessThanOrEqual(0.01 * all);
  }
  expect(stdout).toMatch(/^time +at most .*, 3 times: /m);
  const [, size = ""] = /^disk +(.*?): .* a seed/m.exec(stdout) ?? [];
  expect(numberOf(size) / (3 * disk.total)).toBeCloseTo(1, 1);
  expect(stdout).toMatch(/^machine .*: too little for this run$/m);
}, 120_000);

test("train --dry-run counts the decoded copy that a run keeps of a GGUF file", async () => {
  const prompts = join(folder, "prompts.jsonl");
  writeFileSync(prompts, Array.from({ length: 8 }, (_, k) => `${JSON.stringify({ prompt: `Say ${k}.` })}\n`).join(""));
  const models = async (model: string) => {
    const given = ["train", "--model", model, "--prompts", prompts, "--judge", "expected", "--max-new-tokens", "4"];
    return (await temporaJson<{ models: number }>([...given, "--dry-run", "--skip-too-long"])).models;
  };
  expect(await models(oracle("llama", "policy"))).toBe(4);
  expect(await models(oracle("gguf", "llama-f32.gguf"))).toBe(5);
}, 120_000);

test("train --dry-run finds the row whose answer or judgement has no room, before it measures anything", async () => {
  const prompts = join(folder, "crowded.jsonl");
  const rows = ["word ".repeat(200), ...Array.from({ length: 8 }, (_, k) => `Say ${k}.`)];
  writeFileSync(prompts, rows.map((prompt) => `${JSON.stringify({ prompt })}\n`).join(""));
  const model = ["--model", oracle("llama", "policy"), "--prompts", prompts, "--judge", "function"];
  const judge = join(folder, "crowded.config.ts");
  writeFileSync(judge, `export default { judge: { functions: [{ name: "a", score: () => [] }] } };\n`);
  const command = ["train", judge, ...model, "--dry-run", "--iterations", "1", "--max-new-tokens", "900"];
  const refused = await tempora(command);
  expect(refused.code).toBe(1);
  expect(refused.stderr).toMatch(/The prompt has \d+ tokens/);
  expect(refused.stderr).toMatch(/crowded\.jsonl, row 1/);
  const counted = await tempora([...command, "--skip-too-long"]);
  expect(counted.code).toBe(0);
  expect(counted.stdout).toMatch(/^1 prompts were left out.*row 1 of .*crowded\.jsonl\)$/m);
}, 120_000);

test("train --lora-rank --dry-run counts adapters where the whole model would be trained", async () => {
  const runs = join(folder, "adapters");
  const command = ["train", config, "--runs", runs, "--dry-run"];
  interface Planned {
    memory: { generation: { weights: number } };
    disk: { models: number; state: number };
  }
  const whole = await temporaJson<Planned>(command);
  const adapters = await temporaJson<Planned>([...command, "--lora-rank", "4"]);
  expect(adapters.disk.models).toBeLessThan(whole.disk.models / 2);
  expect(adapters.disk.state).toBeLessThan(whole.disk.state / 2);
  // Adapters lie beside their base.
  expect(adapters.memory.generation.weights).toBeGreaterThan(whole.memory.generation.weights);
  expect(existsSync(runs)).toBe(false);
}, 120_000);

test("doctor --model tells what training and generation take, and what would fit where they do not", async () => {
  const model = oracle("llama", "reference");
  const outlook = await temporaJson<{
    model: { parameters: number; fits: boolean | null; stepSeconds: number } & Record<string, { total: number }>;
  }>(["doctor", "--model", model, "--device", "cpu", "--max-tokens", "8192"]);
  const { training, trainingWithCheckpointing, fits, stepSeconds } = outlook.model;
  expect(fits).toBe(true);
  expect(stepSeconds).toBeGreaterThan(0);
  expect(training?.total).toBeGreaterThan(trainingWithCheckpointing?.total as number);
  // More tokens than any machine has memory for.
  const none = await tempora(["doctor", "--model", model, "--device", "cpu", "--max-tokens", "1000000000000"]);
  expect(none.code).toBe(1);
  expect(none.stdout).toContain("This training does not fit into");
  expect(none.stdout).toMatch(/With .*--max-tokens 1024/);
}, 120_000);
