import { existsSync } from "node:fs";
import { join } from "node:path";
import { scratch } from "@tempora/testing";
import { expect, it } from "vitest";
import { runLoop } from "../loop/loop.ts";
import { tinySettings } from "../loop/tiny.ts";
import { silentObserver } from "../results/observer.ts";
import type { Settings } from "../settings/settings.ts";
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

it("counts at least the tokens that a run computes, and as many where lengths are fixed", async () => {
  const runs = join(folder, "runs");
  const options = { settings, runs, observer: silentObserver, signal: undefined };
  const estimate = await estimateRun(options);
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
}, 300_000);

it("counts one pass for a judge that is read from probabilities", async () => {
  const template = { name: "one", text: "{prompt} : {response} score", maxScore: 5 };
  const judge = { ...settings.judge, kind: "expected" as const, template, heldBack: 0 };
  const expected: Settings = { ...settings, baselines: [], iterations: 1, judge };
  const runs = join(folder, "expected");
  const estimate = await estimateRun({ settings: expected, runs, observer: silentObserver, signal: undefined });
  const judged = estimate.stages.find(({ strategy, kind }) => strategy !== null && kind === "judge");
  expect(judged?.totals.judgedTokens).toBe(0);
  const { result } = await runLoop({ config: { run: "run", runs, settings: expected }, codeVersion: "test" });
  const real = (result.strategies[0]?.iterations[0]?.ledger ?? [])
    .filter(({ stage }) => stage === "judge")
    .reduce((sum, { scoredTokens }) => sum + scoredTokens, 0);
  expect(judged?.totals.scoredTokens).toBeGreaterThanOrEqual(real);
}, 300_000);
