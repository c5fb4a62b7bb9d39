import { expect, test } from "vitest";
import { axisRange } from "./axis-range.ts";
import type { Chart, Point } from "./charts.ts";

function chart(id: string, values: readonly number[], more: Partial<Chart> = {}): Omit<Chart, "range"> {
  const points = values.map((value, index): Point => [index, value, null, null]);
  const base = { id, section: "result", title: id, note: "", kind: "lines", xName: "step", categories: null } as const;
  return { ...base, series: [{ name: "temporal", color: 0, points }], ...more };
}

const filled = (values: readonly number[], [low, high]: [number, number]) =>
  (Math.max(...values) - Math.min(...values)) / (high - low);

test("a curve that hardly moves does not fill its chart", () => {
  for (const id of ["accuracy", "win-rate", "true-score", "loss", "judge-spearman", "anything"]) {
    const values = [0.622, 0.636, 0.629];
    expect(filled(values, axisRange(chart(id, values))), id).toBeLessThan(0.1);
  }
  expect(axisRange(chart("pair-count", [499, 500]))).toEqual([0, 500]);
});

test("a curve that moves does, its intervals included, between round numbers", () => {
  expect(axisRange(chart("margin", [0, 7.4]))).toEqual([0, 8]);
  const points: Point[] = [[1, 2, -1, 5]];
  expect(axisRange(chart("score-gap", [], { series: [{ name: "temporal", color: 0, points }] }))).toEqual([-2, 6]);
});

test("an axis keeps to what its measure can be, and a single or constant value has one", () => {
  expect(axisRange(chart("accuracy", [0.99, 1]))).toEqual([0.7, 1]);
  expect(axisRange(chart("judge-failures", [0, 0]))).toEqual([0, 0.1]);
  expect(axisRange(chart("judge-failures", [0.03, 0.11]))).toEqual([0, 0.15]);
  expect(axisRange(chart("score-by-compute", [0.4, 0.5], { percent: true }))[1]).toBeLessThanOrEqual(1);
  expect(axisRange(chart("pair-count", [0]))).toEqual([0, 1]);
  const [low, high] = axisRange(chart("other", [0]));
  expect(low).toBeLessThan(0);
  expect(high).toBeGreaterThan(0);
});
