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

/**
 * FLOPs of one preference step (forward + backward, cached reference, no recomputation) over pairs that share their
 * prompt: 6 a weight and token in the blocks, 6 a weight and scored row in the head, attention three times its forward.
 */
export function preferenceStepFlops(config: ModelConfig, pairs: number, prompt: number, response: number): number {
  const tokens = pairs * (prompt + 2 * response);
  const rows = pairs * (1 + 2 * (response - 1));
  const triangle = (n: number) => (n * (n + 1)) / 2;
  const visible = pairs * (triangle(prompt) + 2 * (prompt * response + triangle(response)));
  return 6 * blockWeights(config) * tokens + 6 * headWeights(config) * rows + 3 * attentionFlops(config, visible);
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
