import { describe, expect, it } from "vitest";
import type { RunResult } from "./results/results.ts";
import { studyRows } from "./study.ts";

const model = (name: string, score: number, graded: boolean) => ({
  model: name,
  trueScore: graded ? { mean: score, low: null, high: null, count: 1 } : null,
  heldOutScore: { mean: score, low: null, high: null, count: 1 },
  winRate: name === "M0" ? null : { mean: 0.5 + score / 10, low: null, high: null, count: 1 },
  judge: { spearman: 0.6, spearmanOwn: 0.5 },
});

function run(scores: number[], flops: number, graded = true): RunResult {
  return {
    strategies: [
      {
        name: "temporal",
        models: scores.map((score, k) => model(`M${k}`, score, graded)),
        iterations: scores.slice(1).map((score) => ({
          phases: [
            { scoreGap: { mean: 9 }, cosine: { mean: 9 } },
            { scoreGap: { mean: score }, cosine: { mean: 0.5 } },
          ],
        })),
        totals: { flops },
      },
    ],
  } as unknown as RunResult;
}

describe("studyRows", () => {
  const rows = studyRows([run([1, 2, 3], 10), run([2, 4], 30)]);
  const find = (name: string, measure: string) => rows.find((row) => row.model === name && row.measure === measure);

  it("gives every measure of the models that all seeds have, with its interval", () => {
    expect(find("M1", "true score")?.values).toEqual([2, 4]);
    expect(find("M1", "true score")?.estimate.mean).toBe(3);
    expect(find("M1", "true score")?.estimate.low).toBeCloseTo(3 - 12.706, 2);
    expect(find("M2", "true score")).toBeUndefined();
  });

  it("gives the judge's score in place of the true one where nothing knows that", () => {
    const judged = studyRows([run([1, 2], 10, false), run([2, 5], 30, false)]);
    const values = (name: string, list: typeof rows) =>
      list
        .filter(({ model: of, measure }) => of === name && measure.endsWith(" score"))
        .map((row) => [row.measure, row.values]);
    expect(values("M1", judged)).toEqual([["judged score", [2, 5]]]);
    expect(values("last", judged)).toEqual([["judged score", [2, 5]]]);
    expect(values("M1", rows)).toEqual([["true score", [2, 4]]]);
  });

  it("compares the last models of strategies that differ in length", () => {
    expect(find("last", "true score")?.values).toEqual([3, 4]);
    expect(find("last", "flops")?.values).toEqual([10, 30]);
  });

  it("takes the gap of the pairs that train the next model, and leaves out what M0 cannot have", () => {
    expect(find("M1", "score gap")?.values).toEqual([2, 4]);
    expect(find("M0", "win rate")).toBeUndefined();
  });
});
