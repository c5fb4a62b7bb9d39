import { expect, test } from "vitest";
import { ForestBuilder, nodeCount } from "./forest.ts";

test("packs nodes one after another, with parents and marks", () => {
  const builder = new ForestBuilder();
  const prompt = builder.share([5, 6, 7]);
  const chosen = builder.add([8], prompt);
  const rejected = builder.add([9, 10], prompt);
  const forest = builder.build();
  expect([prompt, chosen, rejected, nodeCount(forest)]).toEqual([0, 1, 2, 3]);
  expect([...forest.tokens]).toEqual([5, 6, 7, 8, 9, 10]);
  expect([...forest.nodeStart]).toEqual([0, 3, 4, 6]);
  expect([...forest.nodeParent]).toEqual([-1, 0, 0]);
  expect([...forest.nodeScored]).toEqual([0, 1, 1]);
  expect(builder.pathLength(rejected)).toBe(5);
});

test("shares equal prompts, but never equal nodes below other parents or with other scoring", () => {
  const builder = new ForestBuilder();
  const prompt = builder.share([1, 2]);
  expect(builder.share([1, 2])).toBe(prompt);
  expect(builder.share([1, 2], -1, true)).not.toBe(prompt);
  expect(builder.share([1, 2], prompt)).not.toBe(prompt);
  expect(builder.share([1, 2], prompt)).toBe(builder.share([1, 2], prompt));
  expect(builder.add([1, 2])).not.toBe(prompt);
});

test("refuses an empty node and a parent that is not there yet", () => {
  const builder = new ForestBuilder();
  expect(() => builder.add([])).toThrow("Node 0 of a forest has no tokens. Give every node at least one token");
  expect(() => builder.add([1], 0)).toThrow("Node 0 of a forest names parent 0, which does not exist yet. Add parents");
});
