import type { ModelConfig, ModelSource, TensorSource } from "../model.ts";

/** A model that computes a forest in well under a millisecond; odd sizes on purpose. */
export const tinyConfig: ModelConfig = {
  family: "llama",
  vocabSize: 61,
  hiddenSize: 24,
  intermediateSize: 40,
  layers: 2,
  heads: 4,
  kvHeads: 2,
  headDim: 10,
  normEps: 1e-5,
  tiedHead: false,
  qkvBias: false,
  outputBias: false,
  qkNorm: false,
  windows: [0, 0],
  ropeTheta: 10_000,
  ropeScaling: null,
  maxPositions: 64,
};

/** The same with all that the families add: biases, head norms, a window, a tied head, stretched positions. */
export const richConfig: ModelConfig = {
  ...tinyConfig,
  family: "qwen3",
  tiedHead: true,
  qkvBias: true,
  outputBias: true,
  qkNorm: true,
  windows: [0, 5],
  ropeScaling: { type: "linear", factor: 2 },
};

/** Many small blocks: training on a large forest takes a second or more, and a block of it milliseconds. */
export const slowConfig: ModelConfig = {
  ...tinyConfig,
  vocabSize: 2000,
  hiddenSize: 96,
  intermediateSize: 256,
  layers: 30,
  heads: 6,
  kvHeads: 3,
  headDim: 16,
  windows: Array.from({ length: 30 }, () => 0),
  maxPositions: 1024,
};

/** Ids below `vocabSize`, the same for the same seed. */
export function someIds(count: number, vocabSize: number, seed: number): number[] {
  return Array.from(
    { length: count },
    (_, i) => Math.abs(Math.imul(i + 1, 7919) ^ Math.imul(seed + 1, 104_729)) % vocabSize,
  );
}

/** A model with some of its tensors changed, or left out where `change` returns null. */
export function changedModel(model: ModelSource, change: (tensor: TensorSource) => TensorSource | null): ModelSource {
  return {
    ...model,
    async *tensors() {
      for await (const tensor of model.tensors()) {
        const changed = change(tensor);
        if (changed !== null) yield changed;
      }
    },
  };
}
