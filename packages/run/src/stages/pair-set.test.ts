import { expect, test } from "vitest";
import { pairSet } from "./pair-set.ts";

test("pairs are other ones when any of their ids is another, or lies on another side", () => {
  const pair = { promptIds: [1, 2], chosenIds: [3], rejectedIds: [4, 5] };
  const hash = (over: Partial<typeof pair>) => pairSet([{ ...pair, ...over }]).hash;
  const changed = [
    { promptIds: [1] },
    { chosenIds: [6] },
    { rejectedIds: [4, 6] },
    { chosenIds: [3, 4], rejectedIds: [5] },
  ];
  expect(hash({})).toBe(pairSet([pair]).hash);
  expect(new Set([{}, ...changed].map(hash)).size).toBe(5);
  expect(pairSet([pair, pair]).hash).not.toBe(hash({}));
});
