import type { Forest, PreferenceLoss } from "@tempora/engine";

/** The part of an engine that training uses. `Engine` is one. */
export interface TrainableEngine {
  readonly config: { readonly maxPositions: number };
  logProbs(forest: Forest, options?: { signal?: AbortSignal | undefined }): Promise<{ node: Float64Array }>;
  preferenceStep(
    forest: Forest,
    pairs: readonly { chosen: number; rejected: number; referenceChosen: number; referenceRejected: number }[],
    loss: PreferenceLoss,
    options?: {
      totalPairs?: number;
      totalChosenTokens?: number;
      checkpointing?: boolean | undefined;
      signal?: AbortSignal | undefined;
    },
  ): Promise<{
    loss: number;
    pairs: readonly { loss: number; chosenLogProb: number; rejectedLogProb: number }[];
  }>;
  supervisedStep(
    forest: Forest,
    options?: { weight?: number; checkpointing?: boolean | undefined; signal?: AbortSignal | undefined },
  ): Promise<{ loss: number; tokens: number }>;
  accumulate(
    forest: Forest,
    dLossDLogProb: Float32Array,
    options?: { checkpointing?: boolean | undefined; signal?: AbortSignal | undefined },
  ): Promise<unknown>;
  zeroGradients(): Promise<void>;
  optimizerStep(options: {
    learningRate: number;
    betas?: [number, number];
    epsilon?: number;
    weightDecay?: number;
    maxGradNorm?: number;
    seed?: number;
  }): Promise<{ gradNorm: number }>;
  resetOptimizer(): Promise<void>;
}
