import { describe, expect, it } from "vitest";
import { cosine, interval95, mean, pairedDifference, spearman, winRate } from "./statistics.ts";

describe("interval95", () => {
  it("is the mean ± t(0.975, n − 1) standard errors", () => {
    const { mean: center, low, high, count } = interval95([4.1, 5.0, 3.2, 4.7, 5.5]);
    expect(count).toBe(5);
    expect(center).toBeCloseTo(4.5, 12);
    // Standard error sqrt(0.785 / 5), t(0.975, 4) = 2.776445105.
    expect(low).toBeCloseTo(4.5 - 2.776445105 * Math.sqrt(0.785 / 5), 8);
    expect(high).toBeCloseTo(4.5 + 2.776445105 * Math.sqrt(0.785 / 5), 8);
  });

  it("has no ends for a single value and no mean for none", () => {
    expect(interval95([3])).toEqual({ mean: 3, low: null, high: null, count: 1 });
    expect(interval95([]).mean).toBeNaN();
    expect(mean([])).toBeNaN();
  });
});

describe("pairedDifference", () => {
  it("is exact where the difference never changes", () => {
    expect(pairedDifference([3, 5, 9], [1, 3, 7])).toEqual({ mean: 2, low: 2, high: 2, count: 3 });
  });

  it("refuses lists of different lengths", () => {
    expect(() => pairedDifference([1], [1, 2])).toThrow(/one length, not 1 and 2/);
  });
});

describe("spearman", () => {
  it("gives ties their mean rank", () => {
    // Ranks 1, 2.5, 2.5, 4, 5 and 2, 1, 3.5, 3.5, 5: covariance 7.25, squares 9.5 and 9.5.
    expect(spearman([1, 2, 2, 3, 5], [2, 1, 3, 3, 4])).toBeCloseTo(7.25 / 9.5, 12);
  });

  it("is 1 for any rising and −1 for any falling relation", () => {
    expect(spearman([1, 2, 3, 4], [1, 10, 100, 1000])).toBeCloseTo(1, 12);
    expect(spearman([1, 2, 3, 4], [4, 3, 2, 1])).toBeCloseTo(-1, 12);
  });

  it("does not exist for a constant side or a single value", () => {
    expect(spearman([1, 2, 3], [5, 5, 5])).toBeNull();
    expect(spearman([1], [1])).toBeNull();
  });
});

describe("winRate", () => {
  it("counts a tie half and gives Wilson's interval", () => {
    const result = winRate([5, 4, 3, 2, 5, 5, 5, 5, 5, 1], [1, 4, 3, 5, 1, 1, 1, 1, 1, 5]);
    expect(result).toMatchObject({ wins: 6, ties: 2, losses: 2, count: 10 });
    expect(result.rate).toBeCloseTo(0.7, 12);
    // Wilson's formula for 7 of 10 by hand, z from Python's statistics.NormalDist().inv_cdf(0.975).
    expect(result.low).toBeCloseTo(0.39677814746114537, 12);
    expect(result.high).toBeCloseTo(0.8922087325936989, 12);
  });

  it("stays within 0 and 1", () => {
    expect(winRate([1, 1], [0, 0]).high).toBe(1);
    expect(winRate([0, 0], [1, 1]).low).toBe(0);
    expect(winRate([], []).rate).toBeNaN();
  });
});

describe("cosine", () => {
  it("measures the angle", () => {
    expect(cosine([1, 0], [0, 2])).toBe(0);
    expect(cosine([1, 2], [2, 4])).toBeCloseTo(1, 12);
    expect(cosine(new Float32Array([1, 1]), new Float32Array([-1, -1]))).toBeCloseTo(-1, 12);
    expect(cosine([0, 0], [1, 1])).toBeNull();
    expect(() => cosine([1], [1, 2])).toThrow(/one length/);
  });
});
