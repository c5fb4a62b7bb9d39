import { describe, expect, it } from "vitest";
import { scheduleFactor } from "./schedules.ts";

// Values of transformers' get_linear_schedule_with_warmup and get_cosine_schedule_with_warmup, 12 steps, 3 of warmup.
describe("scheduleFactor", () => {
  it("warms up from zero and falls linearly", () => {
    const factors = Array.from({ length: 12 }, (_, step) => scheduleFactor("linear", step, 12, 3));
    const expected = [0, 1 / 3, 2 / 3, 1, 8 / 9, 7 / 9, 6 / 9, 5 / 9, 4 / 9, 3 / 9, 2 / 9, 1 / 9];
    factors.forEach((factor, step) => {
      expect(factor).toBeCloseTo(expected[step] as number, 12);
    });
  });

  it("follows half a cosine after the warmup", () => {
    expect(scheduleFactor("cosine", 3, 12, 3)).toBe(1);
    expect(scheduleFactor("cosine", 6, 12, 3)).toBeCloseTo(0.75, 12);
    expect(scheduleFactor("cosine", 9, 12, 3)).toBeCloseTo(0.25, 12);
  });

  it("stays at the peak when constant, after the warmup", () => {
    expect([0, 1, 2, 3, 11].map((step) => scheduleFactor("constant", step, 12, 2))).toEqual([0, 0.5, 1, 1, 1]);
    expect(scheduleFactor("constant", 0, 12, 0)).toBe(1);
  });

  it("warms up over a tenth of the steps where no number is given, so that five steps do not all warm up", () => {
    for (const step of [0, 1, 2, 4]) {
      expect(scheduleFactor("linear", step, 5, null)).toBe(scheduleFactor("linear", step, 5, 0));
      expect(scheduleFactor("cosine", step, 40, null)).toBe(scheduleFactor("cosine", step, 40, 4));
    }
  });
});
