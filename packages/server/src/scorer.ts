import type { Engine } from "@tempora/engine";
import { prefixForest } from "@tempora/training";
import type { LoggedToken, TokenLogProb } from "./choice.ts";

/** A prompt's tokens as the model predicts them. */
export type ScoredToken = Omit<LoggedToken, "offset">;

interface Waiting {
  ids: readonly number[];
  adapter: string | null;
  top: number;
  resolve(tokens: ScoredToken[]): void;
  reject(error: unknown): void;
}

/**
 * Log-probs of prompts. Those that are asked for while a pass runs share the next one, and in it the prefixes that those
 * of one adapter have in common.
 */
export class Scorer {
  readonly #engine: Pick<Engine, "logProbs">;
  readonly #maxTokens: number;
  #waiting: Waiting[] = [];
  #running = false;

  /** @param maxTokens Prompt tokens of one pass at most; a longer prompt has a pass to itself. */
  constructor(engine: Pick<Engine, "logProbs">, maxTokens: number) {
    this.#engine = engine;
    this.#maxTokens = maxTokens;
  }

  /**
   * @param adapter what the prompt goes through; null for the base alone
   * @param top How many of the most likely tokens are wanted in each place.
   */
  score(ids: readonly number[], adapter: string | null, top: number): Promise<ScoredToken[]> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ ids, adapter, top, resolve, reject });
      if (!this.#running) void this.#run();
    });
  }

  async #run(): Promise<void> {
    this.#running = true;
    // Whoever asks in this turn of the event loop is in the first pass.
    await Promise.resolve();
    while (this.#waiting.length > 0) {
      const batch = this.#next();
      try {
        const scored = await this.#pass(batch);
        for (const [i, { resolve }] of batch.entries()) resolve(scored[i] as ScoredToken[]);
      } catch (error) {
        for (const { reject } of batch) reject(error);
      }
    }
    this.#running = false;
  }

  #next(): Waiting[] {
    let tokens = 0;
    let count = 0;
    for (const { ids } of this.#waiting) {
      tokens += ids.length;
      if (count > 0 && tokens > this.#maxTokens) break;
      count++;
    }
    return this.#waiting.splice(0, count);
  }

  async #pass(batch: readonly Waiting[]): Promise<ScoredToken[][]> {
    const { forest, leaves } = prefixForest(
      batch.map(({ ids }) => ids),
      batch.map(({ adapter }) => adapter),
    );
    const { nodeStart, nodeParent } = forest;
    const scored = { ...forest, nodeScored: new Uint8Array(nodeParent.length).fill(1) };
    const most = Math.max(0, ...batch.map(({ top }) => top));
    const { token: logProbs, top } = await this.#engine.logProbs(scored, { top: most });
    return batch.map(({ ids, top: wanted }, i) => {
      const places: number[] = [];
      for (let node = leaves[i] as number; node >= 0; node = nodeParent[node] as number) {
        for (let at = (nodeStart[node + 1] as number) - 1; at >= (nodeStart[node] as number); at--) places.push(at);
      }
      places.reverse();
      return ids.map((id, position): ScoredToken => {
        if (position === 0) return { id, logProb: null, top: [] };
        const at = places[position] as number;
        const best: TokenLogProb[] = [];
        for (let k = at * most; k < at * most + wanted; k++) {
          best.push({ id: top?.ids[k] as number, logProb: top?.logProbs[k] as number });
        }
        return { id, logProb: logProbs[at] as number, top: best };
      });
    });
  }
}
