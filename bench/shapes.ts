import type { ModelConfig } from "@tempora/engine";

/** The 135M Llama shape (SmolLM-135M): the step and generation benchmarks and their peers all use it. */
export const llama135M: ModelConfig = {
  family: "llama",
  vocabSize: 49152,
  hiddenSize: 576,
  intermediateSize: 1536,
  layers: 30,
  heads: 9,
  kvHeads: 3,
  headDim: 64,
  normEps: 1e-5,
  tiedHead: true,
  qkvBias: false,
  outputBias: false,
  qkNorm: false,
  windows: Array.from({ length: 30 }, () => 0),
  ropeTheta: 10_000,
  ropeScaling: null,
  maxPositions: 2048,
};

/** Elements of the matrices that every token is multiplied by: all blocks, without embedding and head. */
export function blockWeights(config: ModelConfig): number {
  const queries = config.heads * config.headDim;
  const keys = config.kvHeads * config.headDim;
  const attention = config.hiddenSize * (2 * queries + 2 * keys);
  return config.layers * (attention + 3 * config.hiddenSize * config.intermediateSize);
}

export function headWeights(config: ModelConfig): number {
  return config.vocabSize * config.hiddenSize;
}

/** FLOPs of attention over `visible` (query, key) pairs, forward: scores and values, two each a multiply-add. */
export function attentionFlops(config: ModelConfig, visible: number): number {
  return 4 * config.layers * config.heads * config.headDim * visible;
}

export interface PairShape {
  pairs: number;
  prompt: number;
  response: number;
}

/** What a step trains, and what that costs: `perWeight` FLOPs a frozen or trained weight and token. */
export interface Trained {
  /** 6 where the weight itself is trained: forward, its input's gradient, its own. 4 where it is frozen. */
  perWeight: 6 | 4;
  /** Elements of adapters beside the blocks' matrices. */
  adapterWeights: number;
}

export const wholeModel: Trained = { perWeight: 6, adapterWeights: 0 };

/** LoRA on all linear modules of the blocks. */
export function adapterTraining(config: ModelConfig, rank: number): Trained {
  const { hiddenSize: hidden, intermediateSize: inner } = config;
  const queries = config.heads * config.headDim;
  const keys = config.kvHeads * config.headDim;
  const sides = 2 * (hidden + queries) + 2 * (hidden + keys) + 3 * (hidden + inner);
  return { perWeight: 4, adapterWeights: config.layers * rank * sides };
}

/**
 * FLOPs of one preference step (forward + backward, cached reference, no recomputation) over pairs that share their
 * prompt: 6 a trained weight and token in the blocks, 6 a weight and scored row in the head (4 where they are frozen),
 * attention three times its forward.
 */
export function preferenceStepFlops(
  config: ModelConfig,
  { pairs, prompt, response }: PairShape,
  trained: Trained,
): number {
  const tokens = pairs * (prompt + 2 * response);
  const rows = pairs * (1 + 2 * (response - 1));
  const triangle = (n: number) => (n * (n + 1)) / 2;
  const visible = pairs * (triangle(prompt) + 2 * (prompt * response + triangle(response)));
  const blocks = trained.perWeight * blockWeights(config) + 6 * trained.adapterWeights;
  return blocks * tokens + trained.perWeight * headWeights(config) * rows + 3 * attentionFlops(config, visible);
}

/**
 * Bytes that an optimizer step cannot do without, all read and written once: zeroing the f32 gradients, their norm, and
 * AdamW with f32 moments over bf16 weights or, where adapters are trained, f32 ones.
 */
export function optimizerBytes(config: ModelConfig, trained: Trained): number {
  const adapters = trained.adapterWeights;
  const [parameters, weightBytes] = adapters > 0 ? [adapters, 4] : [blockWeights(config) + headWeights(config), 2];
  const zeroing = 4;
  const norm = 4;
  const adamw = 4 + 2 * (weightBytes + 4 + 4);
  return parameters * (zeroing + norm + adamw);
}

export interface Ceilings {
  /** FLOP/s of a large bf16 product. */
  flops: number;
  /** Bytes/s of a large copy, read and written. */
  bandwidth: number;
}

/** Seconds that generation cannot go below: each step reads all weights once or is bound by its products. */
export function generationFloor(
  config: ModelConfig,
  work: { prompt: number; samples: number; newTokens: number },
  ceilings: Ceilings,
): number {
  const weights = blockWeights(config) + headWeights(config);
  const prefill = (2 * blockWeights(config) * work.prompt) / ceilings.flops;
  const step = Math.max((2 * weights) / ceilings.bandwidth, (2 * weights * work.samples) / ceilings.flops);
  return prefill + work.newTokens * step;
}
