import type { NativeMemory } from "./addon.ts";
import type { DType } from "./model.ts";

export type Quantization = "nf4" | "gguf";

export interface EngineOptions {
  /** "auto" (default) takes a CUDA device if there is one and the CPU otherwise; "cuda" takes no other. */
  device?: "auto" | "cpu" | "cuda" | undefined;
  /** Element type of weights and activations; default: the checkpoint's. */
  dtype?: DType | undefined;
  /** CPU threads; 0 (default) for all cores. */
  threads?: number | undefined;
  /**
   * "nf4": the matrices of the blocks in 4 bits with double quantisation (QLoRA), 4.13 bits a number; embeddings, head, norms
   * and biases stay in dtype, and so does what is computed; what files hold in this very format (bitsandbytes') stays as it is. "gguf": those of them that a GGUF file holds in quantised blocks
   * (ggufBlockFormats) stay as they are. Quantised weights are frozen: only adapters can be trained.
   */
  quantize?: Quantization | undefined;
  /** How AdamW's moments are stored; default "f32". Of 8 bytes a parameter "bf16" leaves 4, "8bit" 2.03. */
  moments?: MomentsFormat | undefined;
}

export interface LoadOptions extends EngineOptions {
  signal?: AbortSignal | undefined;
  /** Bytes of the checkpoint that are in. */
  onProgress?: ((done: number, total: number) => void) | undefined;
}

export interface CallOptions {
  /** Stops the call at its next safe point; it then rejects with an AbortError. A stopped training call leaves zero gradients. */
  signal?: AbortSignal | undefined;
}

export interface LogProbOptions extends CallOptions {
  /** Tell the k most likely tokens in the place of each scored one; default 0. */
  top?: number | undefined;
}

export interface TrainingCallOptions extends CallOptions {
  /** Recompute activations in the backward pass instead of keeping them: less memory, a third more work. */
  checkpointing?: boolean | undefined;
}

export interface PreferenceStepOptions extends TrainingCallOptions {
  /** Pairs of the whole optimizer batch that this call is a part of; default: this call's. */
  totalPairs?: number | undefined;
  /** Chosen tokens of the whole optimizer batch (the sft term is a token mean); default: this call's. */
  totalChosenTokens?: number | undefined;
}

/** The most likely tokens in some places, k each, best first. */
export interface TopLogProbs {
  /** [places × k] */
  ids: Int32Array;
  /** [places × k] */
  logProbs: Float32Array;
}

export interface LogProbs {
  /** [T] log-prob of each token of a scored node; 0 elsewhere and for the first token of a scored root. */
  token: Float32Array;
  /** [N] sum over each node. */
  node: Float64Array;
  /** In [T] places, where it was asked for: meaningful where a token is scored. */
  top?: TopLogProbs;
}

export interface PairResult {
  /** Of an sft term its share, as in preferenceLoss: the losses of an optimizer batch average to the batch's loss. */
  loss: number;
  /** Summed log-probs of the completions under the policy, and their token counts. */
  chosenLogProb: number;
  rejectedLogProb: number;
  chosenLength: number;
  rejectedLength: number;
  /** beta · (policy - reference) */
  chosenReward: number;
  rejectedReward: number;
}

export interface PreferenceStepResult {
  /** This call's share of the batch mean. */
  loss: number;
  pairs: PairResult[];
  /** [T] */
  token: Float32Array;
}

export interface SupervisedStepResult {
  /** Σ weight · -log p */
  loss: number;
  /** Scored tokens. */
  tokens: number;
  /** [T] log-probs */
  token: Float32Array;
}

export interface OptimizerStepOptions {
  learningRate: number;
  /** Default [0.9, 0.999]. */
  betas?: [number, number] | undefined;
  /** Default 1e-8. */
  epsilon?: number | undefined;
  /** Decoupled; default 0. */
  weightDecay?: number | undefined;
  /** Decay norms and biases as well; default false, as in the Hugging Face Trainer. */
  decayAll?: boolean | undefined;
  /** Largest norm of all gradients together; 0 (default) for no clipping. */
  maxGradNorm?: number | undefined;
  /** Of the stochastic rounding of bf16 weights. */
  seed?: number | undefined;
}

/** AdamW's moments of one tensor: as many numbers as it has. */
export interface ParameterMoments {
  name: string;
  first: Float32Array;
  second: Float32Array;
  /** Of moments in 8 bits, one for each 256 numbers: they make the numbers the same bits again. Else empty, or left out. */
  firstScales?: Float32Array | undefined;
  secondScales?: Float32Array | undefined;
}

/**
 * How AdamW's moments are stored: "f32"; "bf16", rounded stochastically; or "8bit", as bitsandbytes' AdamW8bit does it
 * (tensors below 4096 numbers in f32).
 */
export type MomentsFormat = "f32" | "bf16" | "8bit";

/** Numbers that one scale stands for, and the smallest tensor that is stored so: native/src/backend/backend.h. */
const momentsBlock = 256;
export const smallestIn8Bits = 4096;

/** How many scales the first moments of a tensor of so many numbers have, and the second as many. */
export function momentScales(numbers: number, format: MomentsFormat): number {
  return format === "8bit" && numbers >= smallestIn8Bits ? Math.ceil(numbers / momentsBlock) : 0;
}

export interface TensorBytes {
  name: string;
  dtype: DType;
  shape: readonly number[];
  bytes: Uint8Array;
}

/** Bytes by use, as of the last call that ended. */
export type EngineMemory = NativeMemory;
