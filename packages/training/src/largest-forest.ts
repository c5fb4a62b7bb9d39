import type { Forest } from "@tempora/engine";
import { optimizerBatches, type PackItem, packForests } from "./batches.ts";
import type { TrainingOptions } from "./training-options.ts";
import { epochOrder } from "./training-steps.ts";

/** What decides the memory of a forest's step; of several forests the most of each. */
export interface ForestSize {
  tokens: number;
  scoredTokens: number;
  /** Scored tokens of the largest tree. */
  treeTokens: number;
}

type Packing = Pick<TrainingOptions, "batchPairs" | "maxTokens" | "epochs" | "shuffle" | "seed">;

/**
 * The largest of the forests that a training makes of its items: packed as it packs them, because which prompts share a
 * tree depends on what stands beside them in a batch. `onForest` gets each of them: without shuffling those of one epoch.
 */
export function largestForest(
  items: readonly PackItem[],
  options: Packing,
  maxPositions: number,
  onForest: (forest: Forest) => void = () => undefined,
): ForestSize {
  const largest: ForestSize = { tokens: 0, scoredTokens: 0, treeTokens: 0 };
  const limits = { maxTokens: options.maxTokens, maxPositions };
  for (let epoch = 0; epoch < (options.shuffle ? options.epochs : 1); epoch++) {
    for (const batch of optimizerBatches(epochOrder(items.length, options, epoch), options.batchPairs)) {
      const own = batch.map((index) => items[index] as PackItem);
      for (const { forest } of packForests(own, limits)) {
        onForest(forest);
        const size = sizeOf(forest);
        largest.tokens = Math.max(largest.tokens, size.tokens);
        largest.scoredTokens = Math.max(largest.scoredTokens, size.scoredTokens);
        largest.treeTokens = Math.max(largest.treeTokens, size.treeTokens);
      }
    }
  }
  return largest;
}

function sizeOf({ tokens, nodeStart, nodeParent, nodeScored }: Forest): ForestSize {
  const root: number[] = [];
  const ofRoot = new Map<number, number>();
  let scoredTokens = 0;
  nodeParent.forEach((parent, node) => {
    const tree = parent < 0 ? node : (root[parent] as number);
    root.push(tree);
    if (nodeScored[node] === 0) return;
    const length = (nodeStart[node + 1] as number) - (nodeStart[node] as number);
    scoredTokens += length;
    ofRoot.set(tree, (ofRoot.get(tree) ?? 0) + length);
  });
  return { tokens: tokens.length, scoredTokens, treeTokens: Math.max(0, ...ofRoot.values()) };
}
