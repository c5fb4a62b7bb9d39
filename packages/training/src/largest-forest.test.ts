import { expect, it } from "vitest";
import type { PackItem } from "./batches.ts";
import { largestForest } from "./largest-forest.ts";

const ids = (length: number, first: number) => Array.from({ length }, (_, index) => first + index);
const item = (prompt: number, chosen: number, rejected: number): PackItem => ({
  promptIds: ids(6, prompt),
  completions: [ids(chosen, 500), ids(rejected, 600)],
});
const options = { batchPairs: 2, maxTokens: 100, epochs: 1, shuffle: false, seed: 0 };

it("finds the most tokens, scored tokens and scored tokens of one tree", () => {
  const apart = [item(0, 3, 4), item(50, 5, 6), item(100, 1, 1), item(150, 8, 9)];
  expect(largestForest(apart, options, 100)).toEqual({ tokens: 12 + 19, scoredTokens: 19, treeTokens: 17 });
});

it("counts the completions of all rows that share a tree as one tree's", () => {
  const shared = [item(0, 3, 4), item(0, 5, 6)];
  expect(largestForest(shared, options, 100)).toEqual({ tokens: 6 + 18, scoredTokens: 18, treeTokens: 18 });
  expect(largestForest(shared, { ...options, maxTokens: 20 }, 100)).toEqual({
    tokens: 17,
    scoredTokens: 11,
    treeTokens: 11,
  });
});

it("looks at what later epochs put together", () => {
  const rows = Array.from({ length: 8 }, (_, k) => item(50 * k, k + 1, k + 1));
  const of = (epochs: number) => largestForest(rows, { ...options, shuffle: true, epochs }, 100).scoredTokens;
  expect(of(1)).toBeLessThan(of(50));
  // The two longest meet.
  expect(of(50)).toBe(16 + 14);
});
