/** The model families that the engine computes exactly. Anything else is refused by name. */
export type Family = "llama" | "qwen2" | "qwen3" | "mistral";

/** How rotary frequencies are stretched for longer contexts. */
export type RopeScaling =
  | { type: "linear"; factor: number }
  | {
      type: "llama3";
      factor: number;
      lowFreqFactor: number;
      highFreqFactor: number;
      originalMaxPositions: number;
    };

/** A decoder's shape: plain, checked numbers. Both config styles of Hugging Face end up here. */
export interface ModelConfig {
  family: Family;
  vocabSize: number;
  hiddenSize: number;
  intermediateSize: number;
  layers: number;
  heads: number;
  kvHeads: number;
  /** Even; need not be hiddenSize / heads. */
  headDim: number;
  /** Epsilon of every RMSNorm. */
  normEps: number;
  /** True when the head is the embedding matrix. */
  tiedHead: boolean;
  /** Bias on q, k and v. */
  qkvBias: boolean;
  /** Bias on the attention output (Llama and Qwen3 with attention_bias). */
  outputBias: boolean;
  /** RMSNorm over each head of q and k before rope (Qwen3). */
  qkNorm: boolean;
  /** One entry a layer: how many tokens a token sees, itself included; 0 for all. */
  windows: number[];
  ropeTheta: number;
  ropeScaling: RopeScaling | null;
  /** Longest path from a root, in tokens. */
  maxPositions: number;
}

/** Element types of tensors on disk and in the engine. */
export type DType = "f32" | "bf16";

/** One tensor of a checkpoint, read when asked for. */
export interface TensorSource {
  name: string;
  dtype: DType;
  shape: readonly number[];
  /** Where it lies, for messages. */
  file: string;
  /** The little-endian bytes, row-major, shape product × element size. */
  read(): Promise<Uint8Array>;
  /** Each read gives bytes of its own, of which nobody else knows: an engine that has copied them gives their memory back. */
  fresh?: true | undefined;
  /** Where the file holds it in quantised blocks: those, row by row; of NF4, as native/src/backend/nf4.h lays them out. */
  blocks?: { format: BlockFormatName; byteLength: number; read(): Promise<Uint8Array> } | undefined;
}

/** The quantised blocks of GGUF files that an engine may keep as they are; NF4 is bitsandbytes', with double quantisation. */
export const ggufBlockFormats = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K"] as const;
export type BlockFormatName = (typeof ggufBlockFormats)[number] | "NF4";

/** What Engine.load needs: a shape and every tensor of parameterShapes(config). */
export interface ModelSource {
  config: ModelConfig;
  /** Where the model lies, for messages. */
  name: string;
  /** Element type of the checkpoint: the engine's default. */
  dtype: DType;
  tensors(): Iterable<TensorSource> | AsyncIterable<TensorSource>;
}

export interface ParameterShape {
  name: string;
  shape: readonly number[];
  /** False for norms and biases, as in the Hugging Face Trainer. */
  decays: boolean;
}

/** Whether it is a matrix of a block, which may be held quantized: neither a norm or bias, nor the embedding or head. */
export function isBlockMatrix({ name, decays }: ParameterShape): boolean {
  return decays && name.startsWith("model.layers.");
}

/** Every parameter of a model by its Hugging Face name, in the order the engine numbers them. */
export function parameterShapes(config: ModelConfig): ParameterShape[] {
  const { hiddenSize: hidden, intermediateSize: inner, headDim } = config;
  const queries = config.heads * headDim;
  const keys = config.kvHeads * headDim;
  const list: ParameterShape[] = [];
  const matrix = (name: string, rows: number, columns: number) =>
    list.push({ name, shape: [rows, columns], decays: true });
  const vector = (name: string, length: number) => list.push({ name, shape: [length], decays: false });

  matrix("model.embed_tokens.weight", config.vocabSize, hidden);
  for (let layer = 0; layer < config.layers; layer++) {
    const prefix = `model.layers.${layer}`;
    vector(`${prefix}.input_layernorm.weight`, hidden);
    matrix(`${prefix}.self_attn.q_proj.weight`, queries, hidden);
    matrix(`${prefix}.self_attn.k_proj.weight`, keys, hidden);
    matrix(`${prefix}.self_attn.v_proj.weight`, keys, hidden);
    if (config.qkvBias) {
      vector(`${prefix}.self_attn.q_proj.bias`, queries);
      vector(`${prefix}.self_attn.k_proj.bias`, keys);
      vector(`${prefix}.self_attn.v_proj.bias`, keys);
    }
    if (config.qkNorm) {
      vector(`${prefix}.self_attn.q_norm.weight`, headDim);
      vector(`${prefix}.self_attn.k_norm.weight`, headDim);
    }
    matrix(`${prefix}.self_attn.o_proj.weight`, hidden, queries);
    if (config.outputBias) vector(`${prefix}.self_attn.o_proj.bias`, hidden);
    vector(`${prefix}.post_attention_layernorm.weight`, hidden);
    matrix(`${prefix}.mlp.gate_proj.weight`, inner, hidden);
    matrix(`${prefix}.mlp.up_proj.weight`, inner, hidden);
    matrix(`${prefix}.mlp.down_proj.weight`, hidden, inner);
  }
  vector("model.norm.weight", hidden);
  if (!config.tiedHead) matrix("lm_head.weight", config.vocabSize, hidden);
  return list;
}

/**
 * Rotary frequencies, one for each pair of dimensions [headDim / 2], in radians a token; rounded to float32 as
 * transformers computes them (modeling_rope_utils: _compute_linear_scaling_rope_parameters, _compute_llama3_parameters).
 */
export function rotaryFrequencies(config: ModelConfig): Float32Array {
  const half = config.headDim / 2;
  const frequencies = new Float32Array(half);
  for (let i = 0; i < half; i++) {
    const plain = 1 / config.ropeTheta ** ((2 * i) / config.headDim);
    frequencies[i] = scaleFrequency(plain, config.ropeScaling);
  }
  return frequencies;
}

function scaleFrequency(frequency: number, scaling: RopeScaling | null): number {
  if (scaling === null) return frequency;
  if (scaling.type === "linear") return frequency / scaling.factor;
  const wavelength = (2 * Math.PI) / frequency;
  const lowWavelength = scaling.originalMaxPositions / scaling.lowFreqFactor;
  const highWavelength = scaling.originalMaxPositions / scaling.highFreqFactor;
  if (wavelength < highWavelength) return frequency;
  if (wavelength > lowWavelength) return frequency / scaling.factor;
  const smooth =
    (scaling.originalMaxPositions / wavelength - scaling.lowFreqFactor) /
    (scaling.highFreqFactor - scaling.lowFreqFactor);
  return ((1 - smooth) * frequency) / scaling.factor + smooth * frequency;
}
