import type { EventRow, RunResult } from "@tempora/run";
import { expect, test } from "vitest";
import { alarmLines, alarmsOf } from "./alarms.ts";
import { estimate, sampleRun } from "./testing/sample-run.ts";
import { renderReport } from "./write-report.ts";

/** What is said of the sample's first strategy after a change to its run. */
function said(
  change: (strategy: RunResult["strategies"][number], run: ReturnType<typeof sampleRun>) => void,
): string[] {
  const run = sampleRun();
  const strategy = run.result.strategies[0];
  if (strategy === undefined) throw new TypeError("the sample has no strategy");
  change(strategy, run);
  return alarmsOf(run.result, run.events)
    .filter((alarm) => alarm.strategy === strategy.name)
    .map(({ what }) => what);
}

const quiet = said(() => {});

test("a run that is well raises no alarm", () => {
  expect(quiet).toEqual([]);
});

test("too little to tell raises none either", () => {
  const gaps = (...means: number[]) =>
    said(({ iterations }) =>
      iterations.forEach(({ phases }, k) => {
        for (const phase of phases) phase.scoreGap = estimate(means[k] ?? means[0]!);
      }),
    );
  // No gap that could shrink.
  expect(gaps(-0.01)).toEqual([]);
  expect(gaps(0)).toEqual([]);
  expect(gaps(-0.01, -0.2)).toEqual([]);
  // A single answer, or answers of one score, have no deviation to compare with.
  const drifted = said(({ models }) => {
    for (const { judge } of models) Object.assign(judge, { spearman: null, mean: 0.41, variance: 0 });
    Object.assign(models.at(-1)!.judge, { mean: 0.414 });
  });
  expect(drifted).toEqual([]);
});

test("each trouble is said with its figures", () => {
  const last = <T>(list: readonly T[]) => list[list.length - 1] as T;
  const judge = (change: object) =>
    said(({ models }) => {
      const model = last(models);
      model.judge = { ...model.judge, ...change };
    });
  const pairs = (change: object) => said(({ iterations }) => void Object.assign(last(last(iterations).phases), change));
  expect(pairs({ scoreGap: estimate(1) })).toEqual([expect.stringContaining("from 3.67 to 1.00")]);
  expect(pairs({ cosine: estimate(0.99) })).toEqual([expect.stringContaining("cosine 0.990")]);
  expect(judge({ tieRate: 0.6 })).toEqual([expect.stringContaining("60.0 %")]);
  expect(judge({ spearman: 0.1 })).toEqual([expect.stringMatching(/rank correlation .* to 0\.10/)]);
  expect(judge({ failureRate: 0.3 })).toEqual([expect.stringContaining("30.0 %")]);
  expect(said(({ models }) => void Object.assign(last(models), { answerLength: 1000 }))).toEqual([
    expect.stringContaining("to 1000 tokens"),
  ]);
  expect(
    said(({ iterations }) => {
      for (const { training } of iterations.flatMap(({ phases }) => phases)) {
        training.finalMargin = (training.first["rewards/margins"] ?? Number.NaN) + 0.014;
      }
    }),
  ).toEqual([expect.stringMatching(/of 2 steps at most, .* no more than 0\.014/)]);
  const entropies = ({ models }: Parameters<Parameters<typeof said>[0]>[0]) =>
    models.forEach((model, k) => {
      model.tokenEntropy = 2 - 0.6 * k;
    });
  expect(said(entropies)).toEqual([expect.stringContaining("from 2.00 to 0.80 nats")]);
  expect(
    said(({ models }) => {
      for (const model of models) Object.assign(model, { tokenEntropy: 2 });
      Object.assign(last(models).judge, { spearman: null, mean: 4.9 });
    }),
  ).toEqual([expect.stringContaining("mean score of the same answers moved")]);
  const step = (weight: number): EventRow => ({
    ...{ event: "step", strategy: "temporal", iteration: 2, phase: 2, model: "M2", step: 1, epoch: 1 },
    ...{ loss: 0.1, grad_norm: 1, learning_rate: 1e-3, num_tokens: 10, "tempora/dpo_weight": weight },
  });
  expect(said((_, { events }) => void events.push(...Array.from({ length: 10 }, () => step(0.01))))).toEqual([
    expect.stringContaining("0.010"),
  ]);
});

test("a terminal gets a line for each alarm, with its strategy", () => {
  const run = sampleRun();
  for (const { models } of run.result.strategies) for (const model of models) model.judge.tieRate = 0.9;
  const lines = alarmLines(run.result, run.events);
  expect(lines).toHaveLength(2);
  expect(lines[0]).toMatch(/^temporal: The judge scores .* Use a judge with a finer score/);
});

test("the page shows alarms with what to do", async () => {
  const run = sampleRun();
  for (const { models } of run.result.strategies) for (const model of models) model.judge.tieRate = 0.9;
  expect(await renderReport(run)).toContain("Use a judge with a finer score");
});
