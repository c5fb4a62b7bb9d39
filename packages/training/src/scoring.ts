import type { Forest } from "@tempora/engine";
import type { Place } from "@tempora/errors";
import { packForests } from "./batches.ts";

/** The part of an engine that scoring uses. */
export interface ScoringEngine {
  readonly config: { readonly maxPositions: number };
  logProbs(
    forest: Forest,
    options?: { signal?: AbortSignal | undefined },
  ): Promise<{ token: Float32Array; node: Float64Array }>;
}

export interface ScoredCompletion {
  /** Summed log-prob of the completion given its prompt. */
  sum: number;
  /** One log-prob a token. */
  tokens: number[];
}

export interface ScoreOptions {
  maxTokens: number;
  signal?: AbortSignal | undefined;
  onProgress?: ((done: number, total: number) => void) | undefined;
  /** Called with every forest, for a ledger. */
  onForest?: ((forest: Forest) => void) | undefined;
}

/**
 * Log-probs of every completion of every row, in forests of at most maxTokens tokens; rows with equal prompts share
 * them. Equal rows are computed once. Returns [rows][completions].
 */
export async function scoreRows(
  engine: ScoringEngine,
  rows: readonly { promptIds: readonly number[]; completions: readonly (readonly number[])[]; where?: Place }[],
  options: ScoreOptions,
): Promise<ScoredCompletion[][]> {
  const known = new Map<string, number>();
  const unique: { promptIds: readonly number[]; completions: readonly (readonly number[])[]; where?: Place }[] = [];
  const indices = rows.map((row) => {
    const key = `${row.promptIds.join(",")}|${row.completions.map((completion) => completion.join(",")).join("|")}`;
    let index = known.get(key);
    if (index === undefined) {
      index = unique.push(row) - 1;
      known.set(key, index);
    }
    return index;
  });
  const results: ScoredCompletion[][] = new Array(unique.length);
  let done = 0;
  const limits = { maxTokens: options.maxTokens, maxPositions: engine.config.maxPositions };
  for (const batch of packForests(unique, limits)) {
    options.signal?.throwIfAborted();
    const { token, node } = await engine.logProbs(batch.forest, { signal: options.signal });
    options.onForest?.(batch.forest);
    batch.items.forEach((item, position) => {
      results[item] = (batch.leaves[position] as number[]).map((leaf) => ({
        sum: node[leaf] as number,
        tokens: Array.from(token.subarray(batch.forest.nodeStart[leaf], batch.forest.nodeStart[leaf + 1])),
      }));
    });
    done += batch.items.length;
    options.onProgress?.(done, unique.length);
  }
  return indices.map((index) => results[index] as ScoredCompletion[]);
}
