import { existsSync } from "node:fs";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { scratch } from "@tempora/testing";
import { expect, it } from "vitest";
import { runLoop } from "../loop/loop.ts";
import { tinySettings } from "../loop/tiny.ts";
import type { Settings } from "../settings/settings.ts";
import { worldSource } from "../sources/world.ts";
import { estimateRun } from "./estimate-run.ts";

const folder = await scratch();
const tiny = tinySettings();
const settings: Settings = {
  ...tiny,
  iterations: 2,
  promptsPerIteration: 16,
  // A judgement that is asked for again is no part of an estimate.
  judge: { ...tiny.judge, judgements: 6, retries: 0 },
};

const estimateOf = (of: Settings, runs = folder) =>
  estimateRun({ settings: of, source: worldSource(of), runs, signal: undefined });

/** Rows in a run's files of answers, judgements and pairs, those of its baselines too. */
async function rowsIn(run: string): Promise<number> {
  const names = (await readdir(run, { recursive: true })).filter((name) =>
    /(iterations|evaluation)\/.*\.jsonl$/.test(name),
  );
  const texts = await Promise.all(names.map((name) => readFile(join(run, name), "utf8")));
  return texts.reduce((sum, text) => sum + text.split("\n").length - 1, 0);
}

it("counts at least the tokens that a run computes, and as many where lengths are fixed", async () => {
  const runs = join(folder, "runs");
  const estimate = await estimateOf(settings, runs);
  expect(existsSync(runs)).toBe(false);
  const { result } = await runLoop({ config: { run: "run", runs, settings }, codeVersion: "test" });
  const real = result.strategies[0];
  const own = estimate.iterations[0];
  expect(own?.strategy).toBe("temporal");
  expect(own?.count).toBe(real?.iterations.length);
  for (const name of [
    "generatedTokens",
    "judgedTokens",
    "scoredTokens",
    "trainedTokens",
    "promptTokens",
    "flops",
  ] as const) {
    expect(own?.totals[name], name).toBeGreaterThanOrEqual(real?.totals[name] as number);
  }
  const readToAnswer = (real?.iterations ?? [])
    .flatMap(({ ledger }) => ledger)
    .filter(({ stage }) => stage === "generate")
    .reduce((sum, { promptTokens }) => sum + promptTokens, 0);
  const generate = estimate.stages.find(({ strategy, kind }) => strategy === "temporal" && kind === "generate");
  expect(generate?.totals.promptTokens).toBe(readToAnswer);
  const start = estimate.stages.find(({ kind }) => kind === "start");
  expect(start?.totals.trainedTokens).toBeGreaterThanOrEqual(result.start.tokens);
  // A run computes once what the prompts of a micro-batch begin with; here that is a quarter.
  expect(start?.totals.trainedTokens).toBeLessThan(1.5 * result.start.tokens);
  // M0, and a temporary and a next model in each iteration; the baseline's come on top.
  const models = 1 + 2 * 2 + (estimate.iterations[1]?.count ?? 0);
  expect(estimate.models).toBe(models);
  expect(estimate.disk.models).toBe(models * 4 * estimate.parameters);
  expect(estimate.disk.state).toBe(12 * estimate.parameters);
  expect(estimate.seconds).toBeGreaterThan(0);
  const sampled = estimate.stages.reduce((sum, { totals }) => sum + totals.generatedTokens + totals.judgedTokens, 0);
  expect(estimate.disk.rows).toBe(600 * estimate.rows + 20 * sampled);
  expect(estimate.disk.total).toBe(estimate.disk.models + estimate.disk.state + estimate.disk.rows);
  const kept = await rowsIn(join(runs, "run"));
  expect(estimate.rows).toBeGreaterThanOrEqual(kept);
  expect(estimate.rows).toBeLessThan(2 * kept);
}, 300_000);

it("charges a strategy for answers that another has sampled, which take no time", async () => {
  const changed: Settings = { ...settings, strategy: "past-only", baselines: ["self-rewarding"], iterations: 1 };
  const estimate = await estimateOf(changed);
  const of = (strategy: string, kind: string) =>
    estimate.stages.find((stage) => stage.strategy === strategy && stage.kind === kind);
  for (const kind of ["generate", "judge"]) {
    const [first, second] = [of("past-only", kind), of("self-rewarding", kind)];
    expect(first?.seconds, kind).toBeGreaterThan(0);
    expect(second?.seconds, kind).toBe(0);
    expect(second?.totals, kind).toEqual(first?.totals);
  }
}, 300_000);

it("counts the memory of the larger training, be it M0's or the loop's, and adapters at four bytes a number", async () => {
  const memory = async (loop: number, start: number, lora: Settings["lora"] = null, maxTokens = 2 ** 20) => {
    const changed: Settings = {
      ...settings,
      baselines: [],
      lora,
      training: { ...settings.training, batchPairs: loop, maxTokens },
      start: { ...settings.start, training: { ...settings.start.training, batchPairs: start, maxTokens } },
    };
    return estimateOf(changed);
  };
  const [small, byStart, byLoop] = [await memory(1, 1), await memory(1, 512), await memory(512, 1)];
  const workspace = ({ memory: { training } }: typeof small) => training.workspace;
  expect(workspace(byStart)).toBeGreaterThan(4 * workspace(small));
  expect(workspace(byLoop)).toBeGreaterThan(4 * workspace(small));
  // A micro-batch holds no more, however many rows a batch has.
  expect(workspace(await memory(512, 512, null, 64))).toBeLessThanOrEqual(workspace(small));
  const { trained, adapters, models, parameters, disk } = await memory(1, 1, {
    rank: 4,
    alpha: null,
    rsLora: false,
    targets: "all-linear",
    dropout: 0,
    start: "adapter",
  });
  expect(trained).toBeLessThan(parameters);
  expect([models, adapters]).toEqual([1, 2 * 2]);
  expect(disk.models).toBe(4 * (models * parameters + adapters * trained));
  expect(disk.state).toBe(12 * trained);
}, 300_000);

it("counts one pass for a judge that is read from probabilities", async () => {
  const template = { name: "one", text: "{prompt} : {response} score", maxScore: 5 };
  const judge = { ...settings.judge, kind: "expected" as const, template, heldBack: 0 };
  const expected: Settings = { ...settings, baselines: [], iterations: 1, judge };
  const runs = join(folder, "expected");
  const estimate = await estimateOf(expected);
  const judged = estimate.stages.find(({ strategy, kind }) => strategy !== null && kind === "judge");
  expect(judged?.totals.judgedTokens).toBe(0);
  const { result } = await runLoop({ config: { run: "run", runs, settings: expected }, codeVersion: "test" });
  const real = (result.strategies[0]?.iterations[0]?.ledger ?? [])
    .filter(({ stage }) => stage === "judge")
    .reduce((sum, { scoredTokens }) => sum + scoredTokens, 0);
  expect(judged?.totals.scoredTokens).toBeGreaterThanOrEqual(real);
}, 300_000);
