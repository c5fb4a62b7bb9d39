import type { BlockFormatName, ModelConfig } from "./model.ts";

/**
 * The whole native addon, typed. native/src/addon implements exactly this. Numbers arrive checked: the addon trusts
 * shapes and throws only for what it alone can see (memory, NaN weights, cancelled work, a used-up engine).
 * Every method that returns a promise runs on another thread; at most one such job of an engine runs at a time, the
 * others wait their turn. dispose() during a job waits for no one: it cancels that job and rejects the waiting ones; the
 * memory is free when the job has ended. Calls after dispose() reject. A promise rejects with an Error that has a `code`.
 */

/** Wrong arguments, which TypeScript should have caught, are "invalid-argument" (some throw at once, as TypeError). */
export type NativeErrorCode = "cancelled" | "disposed" | "out-of-memory" | "not-finite" | "invalid-argument" | "failed";

/** A family is what its shape says, and its rope is the frequencies that come of it. */
export interface NativeModelShape extends Omit<ModelConfig, "family" | "windows" | "ropeTheta" | "ropeScaling"> {
  /** [layers] */
  windows: Int32Array;
  /** [headDim / 2] */
  rotaryFrequencies: Float32Array;
}

export interface NativeEngineOptions {
  device: "cpu" | "cuda";
  dtype: "f32" | "bf16";
  /** OpenMP threads; 0 for all cores. */
  threads: number;
  /** How AdamW's moments are stored. */
  moments: "f32" | "bf16" | "8bit";
  /** The matrices of the blocks in 4 bits, frozen; null: as dtype says. */
  quantized: "nf4" | null;
  /** By parameter, of matrices of the blocks: the GGUF format in which it is set, frozen; null: as above. */
  kept?: readonly (BlockFormatName | null)[];
}

/** What setOptimizerState restores bit for bit where getOptimizerState gave it. */
export interface NativeMoments {
  first: Float32Array;
  second: Float32Array;
  /** Of moments in 8 bits, one for each 256 numbers; else empty. Left empty, those that the numbers want are taken. */
  firstScales: Float32Array;
  secondScales: Float32Array;
}

export interface NativeForest {
  tokens: Int32Array;
  nodeStart: Int32Array;
  nodeParent: Int32Array;
  nodeScored: Uint8Array;
  /** [trees] the number of the adapter that each tree goes through, -1 for the base; empty: all as the active one says. */
  rootAdapter: Int32Array;
}

/** Beside a matrix W [N, K] of a block: A [rank, K] and B [N, rank], f32. Each array has an entry a module. */
export interface NativeAdapterSpec {
  /** Numbers of the matrices. */
  parameters: Int32Array;
  ranks: Int32Array;
  /** What B · A is multiplied by. */
  scales: Float32Array;
  /** Of A's input, in training; by random numbers of the seed, the step, the call, the module and the element. */
  dropout: number;
  seed: number;
}

export interface NativeLogProbs {
  /** [T] log-prob of each token of a scored node given its path; 0 elsewhere and for the first token of a scored root. */
  tokenLogProbs: Float32Array;
  /** [N] sum over each node's scored tokens, added up in f64. */
  nodeLogProbs: Float64Array;
  /** [T · top] the most likely tokens in the place of each scored one, best first; of logProbs only. */
  topIds: Int32Array;
  topLogProbs: Float32Array;
}

export interface NativePreferenceLoss {
  types: string[];
  weights: Float64Array;
  beta: number;
  labelSmoothing: number;
  discopopTau: number;
}

export interface NativePreferenceSums {
  /** Each [P]. */
  policyChosen: Float64Array;
  policyRejected: Float64Array;
  referenceChosen: Float64Array;
  referenceRejected: Float64Array;
  chosenLengths: Int32Array;
  rejectedLengths: Int32Array;
}

export interface NativeLossResult {
  /** [P] each pair's loss; their sum / P is the batch mean. sft: Σ token losses · P / Σ chosen tokens. */
  pairLosses: Float64Array;
  /** [P] derivative of the batch mean with respect to each log-prob sum. */
  dChosen: Float64Array;
  dRejected: Float64Array;
}

export interface NativePreferenceStep {
  forest: NativeForest;
  /** [2 P] leaf node of the chosen, then of the rejected completion, pair after pair. */
  pairs: Int32Array;
  /** [2 P] reference log-prob sums in the same order. */
  reference: Float64Array;
  loss: NativePreferenceLoss;
  /** Number of pairs that the mean runs over (the whole optimizer batch). */
  totalPairs: number;
  /** Number of chosen tokens of the whole optimizer batch: the sft term is a token mean. */
  totalChosenTokens: number;
  /** Recompute a block's activations in the backward pass instead of keeping them. */
  checkpointing: boolean;
}

export interface NativePreferenceResult {
  /** This call's share of the batch mean: Σ pair losses / totalPairs (sft: by tokens). */
  loss: number;
  pairLosses: Float64Array;
  /** [2 P] policy log-prob sums, chosen then rejected, and the completions' token counts. */
  logProbs: Float64Array;
  lengths: Int32Array;
  tokenLogProbs: Float32Array;
}

export interface NativeOptimizerOptions {
  learningRate: number;
  beta1: number;
  beta2: number;
  epsilon: number;
  weightDecay: number;
  /** Decay norms and biases as well. */
  decayAll: boolean;
  /** 0: no clipping. */
  maxGradNorm: number;
  /** Seed of the stochastic rounding of bf16 weights. */
  seed: number;
}

export interface NativeGenerationOptions {
  temperature: number;
  topK: number;
  topP: number;
  maxNewTokens: number;
  /** Token ids that end a completion (they are part of it). */
  endTokens: Int32Array;
  /** Rows decoded at once at most. */
  maxRows: number;
  /** KV cache tokens at most (prompts held at the time plus rows). */
  maxCacheTokens: number;
}

export interface NativeGenerationRequest {
  forest: NativeForest;
  /** [R] nodes to continue. */
  leaves: Int32Array;
  /** [R] samples of each. */
  samples: Int32Array;
  /** [R] keys the random numbers together with the seed, the sample and the position. */
  promptKeys: Float64Array;
  /** [R] of the random numbers of each leaf's completions. */
  seeds: Float64Array;
  options: NativeGenerationOptions;
}

/** A piece of progress: what each row gained in this step. */
export interface NativeGenerationStep {
  /** [S] row numbers (request r, sample s: Σ samples before r, plus s), grouped so that a row's tokens are in order. */
  rows: Int32Array;
  tokens: Int32Array;
  logProbs: Float32Array;
  /** [S] 0 goes on, 1 ended by an end token, 2 by maxNewTokens or the context length. */
  finished: Uint8Array;
  done: boolean;
}

export interface NativeGeneration {
  /** Advances until at least one token was made for every active row, `steps` times. Not again after a rejection. */
  step(steps: number, cancel: NativeCancel | null): Promise<NativeGenerationStep>;
  /** Ends rows early (stop strings are found in TypeScript), at the beginning of the next step. */
  finishRows(rows: Int32Array): void;
  dispose(): void;
}

export interface NativeBatchOptions {
  /** Rows decoded at once at most; further ones wait. */
  maxRows: number;
  /** Tokens of the KV cache, which is taken whole at the start. */
  maxCacheTokens: number;
}

export interface NativeBatchRequest {
  /** By which steps name it. */
  number: number;
  ids: Int32Array;
  /** The number of the adapter that it goes through, -1 for the base. */
  adapter: number;
  samples: number;
  key: number;
  seed: number;
  temperature: number;
  topK: number;
  topP: number;
  maxNewTokens: number;
  endTokens: Int32Array;
  /** How many of the most likely tokens are told beside each. */
  top: number;
}

/** A token of each row that got one. */
export interface NativeBatchStep {
  /** [S] */
  requests: Float64Array;
  samples: Int32Array;
  tokens: Int32Array;
  logProbs: Float32Array;
  /** [S] 0 goes on, 1 ended by an end token, 2 by maxNewTokens or the context length. */
  finished: Uint8Array;
  /** `top` of each row's request, row after row. */
  topIds: Int32Array;
  topLogProbs: Float32Array;
}

export interface NativeBatch {
  /** At the beginning of the next step, which rejects where it can never run; so does `end`, in the order of the calls. */
  add(request: NativeBatchRequest): void;
  /** Ends a sample, or all of a request where it is -1. */
  end(request: number, sample: number): void;
  /** One pass. Not again after a rejection. */
  step(cancel: NativeCancel | null): Promise<NativeBatchStep>;
  dispose(): void;
}

/** For one call: a flag that was set stays set. */
export interface NativeCancel {
  /** Running work stops at its next safe point (a block of a layer) and rejects with "cancelled". */
  cancel(): void;
}

export interface NativeMemory {
  weights: number;
  gradients: number;
  optimizer: number;
  workspace: number;
  cache: number;
  /** Largest sum of all of them so far. */
  peak: number;
}

export interface NativeEngine {
  /** Takes the device and the weights' memory. To be awaited before anything else. */
  ready(): Promise<void>;
  /**
   * Copies one parameter in, converting between f32 and bf16; "blocks" are those of a parameter that is kept. Rejects on NaN
   * or infinity. `bytes` is read while the
   * promise is pending: leave it alone until then.
   */
  setParameter(index: number, dtype: "f32" | "bf16" | "blocks", bytes: Uint8Array, adapter?: number): Promise<void>;
  /** One parameter's bytes, in the engine's dtype; an adapter's in f32. */
  getParameter(index: number, adapter?: number): Promise<Uint8Array>;
  getGradient(index: number, adapter?: number): Promise<Float32Array>;
  /**
   * A new adapter's number. Its tensors, A and B of each module in turn, are to be set before it is used. Calls that take
   * an adapter are about the base where they are given none or -1.
   */
  addAdapter(spec: NativeAdapterSpec): Promise<number>;
  removeAdapter(adapter: number): Promise<void>;
  /** Trains this adapter instead of the base from now on; -1: the base again. */
  activateAdapter(adapter: number): Promise<void>;
  /** Adds the adapter to the base's weights, and takes it out again, bit for bit. One at a time, not the active one. */
  mergeAdapter(adapter: number): Promise<void>;
  unmergeAdapter(adapter: number): Promise<void>;
  /** `top`: how many of the most likely tokens are told in the place of each scored one. */
  logProbs(forest: NativeForest, top: number, cancel: NativeCancel | null): Promise<NativeLogProbs>;
  preferenceStep(step: NativePreferenceStep, cancel: NativeCancel | null): Promise<NativePreferenceResult>;
  /** Adds the gradient of Σ coefficients · log-probs. coefficients: [T]. */
  accumulate(
    forest: NativeForest,
    coefficients: Float32Array,
    checkpointing: boolean,
    cancel: NativeCancel | null,
  ): Promise<NativeLogProbs>;
  /** [nodes.length · hiddenSize] final-norm states at the last token of each node. */
  hiddenStates(forest: NativeForest, nodes: Int32Array, cancel: NativeCancel | null): Promise<Float32Array>;
  zeroGradients(): Promise<void>;
  /** Returns the gradient norm before clipping. Gradients are zero afterwards. */
  optimizerStep(options: NativeOptimizerOptions): Promise<{ gradNorm: number }>;
  /** AdamW's moments of one parameter and the number of steps taken, of what is trained: what an exact resume needs. */
  getOptimizerState(index: number): Promise<NativeMoments>;
  setOptimizerState(index: number, moments: NativeMoments): Promise<void>;
  setOptimizerSteps(steps: number): Promise<void>;
  /** As of the last call that ended. */
  readonly optimizerSteps: number;
  /** Forgets moments, steps and gradients and gives their memory back. */
  resetOptimizer(): Promise<void>;
  /** A copy of the weights, held in native memory. */
  snapshot(): Promise<NativeSnapshot>;
  restore(snapshot: NativeSnapshot): Promise<void>;
  startGeneration(request: NativeGenerationRequest, cancel: NativeCancel | null): Promise<NativeGeneration>;
  startBatch(options: NativeBatchOptions, cancel: NativeCancel | null): Promise<NativeBatch>;
  /** As of the last call that ended. */
  memory(): NativeMemory;
  dispose(): void;
}

export interface NativeSnapshot {
  readonly bytes: number;
  dispose(): void;
}

export interface NativeDeviceInfo {
  /** "baseline", "avx2", "avx512": the kernels that were chosen on this CPU. */
  cpuKernels: string;
  cpuName: string;
  threads: number;
  oneDnn: string;
  cuda: { built: boolean; devices: string[]; problem: string | null };
}

export interface NativeAddon {
  Engine: new (shape: NativeModelShape, options: NativeEngineOptions) => NativeEngine;
  Cancel: new () => NativeCancel;
  preferenceLoss(loss: NativePreferenceLoss, sums: NativePreferenceSums): NativeLossResult;
  deviceInfo(): NativeDeviceInfo;
  /** Does nothing on another thread; the cost of a call. */
  noop(): Promise<void>;
}
