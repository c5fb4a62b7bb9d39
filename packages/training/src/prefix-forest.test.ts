import { describe, expect, it } from "vitest";
import { prefixForest } from "./prefix-forest.ts";

/** The tokens on the path from the root to a node. */
function path({ forest }: ReturnType<typeof prefixForest>, node: number): number[] {
  const own = Array.from(forest.tokens.subarray(forest.nodeStart[node], forest.nodeStart[node + 1]));
  const parent = forest.nodeParent[node] as number;
  return parent < 0 ? own : [...path({ forest, leaves: [] }, parent), ...own];
}

describe("prefixForest", () => {
  it("holds a rubric once, each prompt once, and every response apart", () => {
    const rubric = [1, 2, 3];
    const sequences = [
      [...rubric, 10, 11, 20],
      [...rubric, 12, 30, 31],
      [...rubric, 10, 11, 21, 22],
    ];
    const built = prefixForest(sequences);
    expect(built.forest.tokens.length).toBe(3 + 2 + 1 + 2 + 3);
    expect(built.leaves.map((leaf) => path(built, leaf))).toEqual(sequences);
  });

  it("gives equal sequences one node, and one that is a prefix of another the node before it", () => {
    const built = prefixForest([[5, 6], [5, 6, 7], [5, 6], [8]]);
    expect(built.leaves[0]).toBe(built.leaves[2]);
    expect(built.leaves.map((leaf) => path(built, leaf))).toEqual([[5, 6], [5, 6, 7], [5, 6], [8]]);
    expect(built.forest.tokens.length).toBe(4);
  });

  it("copes with sequences that each extend the one before by a token", () => {
    const sequences = Array.from({ length: 3000 }, (_, length) => Array.from({ length: length + 1 }, (_, i) => i));
    const built = prefixForest(sequences);
    expect(built.forest.tokens.length).toBe(3000);
  });
});
