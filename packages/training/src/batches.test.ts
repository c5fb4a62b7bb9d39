import { TemporaError } from "@tempora/errors";
import { describe, expect, it } from "vitest";
import { type MicroBatch, optimizerBatches, type PackItem, packForests } from "./batches.ts";

const ids = (length: number, first: number) => Array.from({ length }, (_, index) => first + index);
const pair = (prompt: number[], chosen: number, rejected: number): PackItem => ({
  promptIds: prompt,
  completions: [ids(chosen, 100), ids(rejected, 200)],
});
const limits = { maxTokens: 32, maxPositions: 64 };

describe("packForests", () => {
  it("holds a shared prompt once and keeps every item's completions apart", () => {
    const items = [pair(ids(8, 0), 3, 4), pair(ids(8, 0), 5, 2)];
    const [batch, ...rest] = packForests(items, limits);
    expect(rest).toEqual([]);
    expect(batch?.forest.tokens.length).toBe(8 + 3 + 4 + 5 + 2);
    expect(Array.from(batch?.forest.nodeParent ?? [])).toEqual([-1, 0, 0, 0, 0]);
    expect(Array.from(batch?.forest.nodeScored ?? [])).toEqual([0, 1, 1, 1, 1]);
    expect(batch?.items).toEqual([0, 1]);
    expect(batch?.leaves).toEqual([
      [1, 2],
      [3, 4],
    ]);
  });

  it("holds what different prompts begin with once, where that saves enough", () => {
    const items = [
      pair([...ids(9, 0), 50], 2, 3),
      pair([...ids(9, 0), 51, 52], 1, 2),
      pair([0, 1, 60], 2, 2),
      pair(ids(9, 0), 3, 1),
    ];
    const [batch, ...rest] = packForests(items, { maxTokens: 64, maxPositions: 64 });
    expect(rest).toEqual([]);
    const { forest, items: order, leaves } = batch as MicroBatch;
    expect(forest.tokens.length).toBe(9 + 1 + 5 + 2 + 3 + 3 + 4 + 4);
    const path = (node: number): number[] =>
      node < 0
        ? []
        : [
            ...path(forest.nodeParent[node] as number),
            ...forest.tokens.subarray(forest.nodeStart[node], forest.nodeStart[node + 1]),
          ];
    for (const [k, index] of order.entries()) {
      const { promptIds, completions } = items[index] as PackItem;
      expect(leaves[k]?.map(path)).toEqual(completions.map((completion) => [...promptIds, ...completion]));
      for (const leaf of leaves[k] ?? []) expect(forest.nodeScored[leaf]).toBe(1);
    }
    expect(order.toSorted()).toEqual([0, 1, 2, 3]);
  });

  it("puts the largest prompt group into the first forest and never exceeds the limit", () => {
    const items = [pair(ids(4, 0), 2, 2), pair(ids(20, 30), 5, 5), pair(ids(6, 60), 4, 4), pair(ids(4, 80), 6, 6)];
    const batches = packForests(items, limits);
    expect(batches[0]?.items).toEqual([1]);
    expect(batches.every((batch) => batch.forest.tokens.length <= 32)).toBe(true);
    expect(batches.flatMap((batch) => batch.items).sort()).toEqual([0, 1, 2, 3]);
  });

  it("splits a prompt group that alone is too large", () => {
    const items = Array.from({ length: 5 }, () => pair(ids(10, 0), 5, 5));
    const batches = packForests(items, limits);
    expect(batches.map((batch) => batch.items.length)).toEqual([2, 2, 1]);
  });

  it("names the row that no micro-batch can hold", () => {
    const items = [{ ...pair(ids(20, 0), 10, 10), where: { file: "pairs.jsonl", row: 7 } }];
    expect(() => packForests(items, limits)).toThrow(
      /40 tokens, a micro-batch holds at most 32 \(pairs.jsonl, row 7\)/,
    );
  });

  it("names the row that exceeds the context", () => {
    const items = [{ ...pair(ids(60, 0), 10, 10), where: { row: 2 } }];
    expect(() => packForests(items, { maxTokens: 1000, maxPositions: 64 })).toThrow(
      /70 tokens, the model's context holds 64 \(row 2\)/,
    );
  });

  it("refuses an empty completion", () => {
    expect(() => packForests([{ promptIds: [1], completions: [[]] }], limits)).toThrow(TemporaError);
  });
});

describe("optimizerBatches", () => {
  it("keeps the order and lets the last batch be smaller", () => {
    expect(optimizerBatches([4, 3, 2, 1, 0], 2)).toEqual([[4, 3], [2, 1], [0]]);
  });
});
