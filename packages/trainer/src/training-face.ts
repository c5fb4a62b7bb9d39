import type { Forest, PreferenceLoss } from "@tempora/engine";
import type { Metrics } from "./metrics.ts";
import type { Scheduler } from "./schedules.ts";

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

export interface TrainingOptions {
  learningRate: number;
  scheduler: Scheduler;
  warmupSteps: number;
  /** Not applied to norms and biases, as in the Hugging Face Trainer. */
  weightDecay: number;
  /** 0: no clipping. */
  maxGradNorm: number;
  /** Pairs (or supervised rows) of an optimizer step. */
  batchPairs: number;
  /** Tokens of a micro-batch at most. */
  maxTokens: number;
  epochs: number;
  /** False: rows in the order given, in every epoch. */
  shuffle: boolean;
  seed: number;
  betas?: [number, number];
  epsilon?: number;
  /** Recompute activations in the backward pass instead of keeping them. */
  checkpointing?: boolean;
}

export interface TrainingSummary {
  steps: number;
  /** Tokens computed in training forests, shared prompts once. */
  tokens: number;
  metrics: Metrics[];
}
