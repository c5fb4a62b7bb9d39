import type { Scheduler } from "./schedules.ts";

export interface TrainingOptions {
  learningRate: number;
  scheduler: Scheduler;
  /** Steps in which the learning rate rises; null: a tenth of all steps, so that a short training has a peak too. */
  warmupSteps: number | null;
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
  gradientCheckpointing?: boolean;
}

export interface TrainingSummary {
  steps: number;
  /** Tokens computed in training forests, shared prompts once. */
  tokens: number;
}
