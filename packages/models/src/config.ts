import { dirname, join } from "node:path";
import type { DType, Family, ModelConfig } from "@tempora/engine/model";
import { ConfigReader } from "./config-reader.ts";
import { readJsonObject } from "./json-file.ts";
import { otherArchitectures, unquantized } from "./remedies.ts";
import { readRope, ropeJson } from "./rope.ts";

const architectures: Record<Family, string> = {
  llama: "LlamaForCausalLM",
  qwen2: "Qwen2ForCausalLM",
  qwen3: "Qwen3ForCausalLM",
  mistral: "MistralForCausalLM",
};
const families = Object.keys(architectures) as Family[];

/** Where transformers' own defaults differ between families (their configuration_*.py). */
const defaults: Record<Family, { kvHeads: number | null; headDim: number | null }> = {
  llama: { kvHeads: null, headDim: null },
  qwen2: { kvHeads: null, headDim: null },
  qwen3: { kvHeads: null, headDim: 128 },
  mistral: { kvHeads: 8, headDim: null },
};

/** Mistral, Qwen2 and Qwen3 share this default of `sliding_window`. */
const defaultWindow = 4096;

/** Reads and checks FOLDER/config.json. */
export async function readModelConfig(folder: string): Promise<{ config: ModelConfig; raw: Record<string, unknown> }> {
  const file = join(folder, "config.json");
  const raw = await readJsonObject(file, "the model's config.json");
  return { config: parseModelConfig(raw, file), raw };
}

/** No model has a hundredth of it; lists are made for each layer before any tensor is looked for. */
const maxLayers = 100_000;

/**
 * A checked ModelConfig from the object of a config.json, with the defaults of transformers.
 * @throws TemporaError naming the field for anything that the engine does not compute exactly.
 */
export function parseModelConfig(raw: Record<string, unknown>, file: string): ModelConfig {
  const reader = new ConfigReader(raw, file);
  const family = readFamily(reader);
  refuseUnsupported(reader);
  const layers = reader.integer("num_hidden_layers");
  if (layers > maxLayers) reader.wrong("num_hidden_layers", `at most ${maxLayers}`);
  const heads = reader.integer("num_attention_heads");
  const hiddenSize = reader.integer("hidden_size");
  const kvHeads = readKvHeads(reader, family, heads);
  const layerTypes = readLayerTypes(reader, layers);
  const maxPositions = reader.integer("max_position_embeddings");
  const rope = readRope(reader, layerTypes, maxPositions);
  const attentionBias = (family === "llama" || family === "qwen3") && reader.boolean("attention_bias", false);
  return {
    family,
    vocabSize: reader.integer("vocab_size"),
    hiddenSize,
    intermediateSize: reader.integer("intermediate_size"),
    layers,
    heads,
    kvHeads,
    headDim: readHeadDim(reader, family, hiddenSize, heads),
    normEps: reader.number("rms_norm_eps", { fallback: 1e-6, above: 0 }),
    tiedHead: reader.boolean("tie_word_embeddings", false),
    qkvBias: family === "qwen2" || attentionBias,
    outputBias: attentionBias,
    qkNorm: family === "qwen3",
    windows: readWindows(reader, family, layers, layerTypes),
    ropeTheta: rope.theta,
    ropeScaling: rope.scaling,
    maxPositions,
  };
}

function readFamily(reader: ConfigReader): Family {
  const names = reader.optionalStrings("architectures");
  const supported = Object.values(architectures).join(", ");
  if (names === null || names.length === 0) {
    const type = reader.string("model_type", "none");
    const family = families.find((known) => known === type);
    return (
      family ?? reader.refuse("model_type", `model type "${type}"`, `${families.join(", ")}. ${otherArchitectures}`)
    );
  }
  const family = families.find((known) => architectures[known] === names[0]);
  return (
    family ?? reader.refuse("architectures", `the architecture ${names[0]}`, `${supported}. ${otherArchitectures}`)
  );
}

/** Weights that a folder's reader knows; each tensor states itself how it is held. */
function isNf4(quantization: Record<string, unknown>): boolean {
  const { quant_method: method, load_in_4bit: fourBits, bnb_4bit_quant_type: type } = quantization;
  return method === "bitsandbytes" && fourBits === true && type === "nf4";
}

function refuseUnsupported(reader: ConfigReader): void {
  // MLX writes `quantization`, transformers and all others `quantization_config`.
  for (const field of ["quantization_config", "quantization"]) {
    const quantization = reader.optionalObject(field);
    if (quantization === null) continue;
    const { quant_method: method } = quantization.raw;
    if (field === "quantization_config" && isNf4(quantization.raw)) continue;
    const by = typeof method === "string" ? ` (${method})` : "";
    reader.fail(
      field,
      `asks for quantized weights${by}; F32, F16, BF16 and bitsandbytes' NF4 are read`,
      unquantized(dirname(reader.file), method),
    );
  }
  const activation = reader.string("hidden_act", "silu");
  if (activation !== "silu" && activation !== "swish") {
    reader.refuse("hidden_act", `the activation "${activation}"`, "silu");
  }
  if (reader.boolean("mlp_bias", false)) reader.refuse("mlp_bias", "biases in the MLP");
  if (reader.number("pretraining_tp", { fallback: 1 }) > 1) {
    reader.refuse("pretraining_tp", "sliced linear layers (tensor parallelism of the pretraining)", "pretraining_tp 1");
  }
  if (reader.number("attention_dropout", { fallback: 0 }) !== 0) {
    reader.refuse("attention_dropout", "dropout in training", "attention_dropout 0");
  }
  if (reader.boolean("rope_interleaved", false)) reader.refuse("rope_interleaved", "interleaved rotary pairs");
}

function readKvHeads(reader: ConfigReader, family: Family, heads: number): number {
  // A missing field means the family's default, null means as many as heads: both as in transformers.
  const missing = reader.raw.num_key_value_heads === undefined;
  const kvHeads = reader.integer("num_key_value_heads", {
    fallback: (missing ? defaults[family].kvHeads : null) ?? heads,
  });
  if (heads % kvHeads !== 0) reader.wrong("num_key_value_heads", `a divisor of num_attention_heads (${heads})`);
  return kvHeads;
}

function readHeadDim(reader: ConfigReader, family: Family, hiddenSize: number, heads: number): number {
  const missing = reader.raw.head_dim === undefined;
  const fallback = (missing ? defaults[family].headDim : null) ?? Math.floor(hiddenSize / heads);
  if ((reader.raw.head_dim ?? null) === null && fallback * heads !== hiddenSize && defaults[family].headDim === null) {
    reader.wrong("hidden_size", `a multiple of num_attention_heads (${heads}) when head_dim is not given`);
  }
  const headDim = reader.integer("head_dim", { fallback });
  if (headDim % 2 !== 0) reader.wrong("head_dim", "even", headDim);
  return headDim;
}

function readLayerTypes(reader: ConfigReader, layers: number): string[] | null {
  const types = reader.optionalStrings("layer_types");
  if (types === null) return null;
  if (types.length !== layers) reader.wrong("layer_types", `a list of num_hidden_layers (${layers}) entries`);
  for (const type of types) {
    if (type !== "full_attention" && type !== "sliding_attention") {
      reader.refuse("layer_types", `layers of type "${type}"`, "full_attention and sliding_attention");
    }
  }
  return types;
}

/** One window a layer, 0 for none (configuration_*.py: __post_init__; masking_utils: a window counts the token itself). */
function readWindows(reader: ConfigReader, family: Family, layers: number, types: string[] | null): number[] {
  const all = (window: number) => new Array<number>(layers).fill(window);
  const sliding = types?.map((type) => type === "sliding_attention") ?? null;
  if (family === "llama") {
    if (sliding?.includes(true)) reader.refuse("layer_types", "sliding windows in a Llama");
    return all(0);
  }
  // `null` switches windows off; only a missing field means the default.
  const given = reader.raw.sliding_window;
  const window = given === null ? 0 : reader.integer("sliding_window", { fallback: defaultWindow });
  if (family === "mistral") {
    if (sliding?.some((slides) => slides !== window > 0)) {
      reader.refuse("layer_types", "layer types that disagree with sliding_window");
    }
    return all(window);
  }
  const active = reader.boolean("use_sliding_window", false) && window > 0;
  const first = reader.integer("max_window_layers", { fallback: 28, least: 0 });
  const slides = sliding ?? all(0).map((_, layer) => active && layer >= first);
  if (!active && slides.includes(true)) {
    reader.refuse("layer_types", "sliding attention while use_sliding_window is false or sliding_window is null");
  }
  return slides.map((one) => (one ? window : 0));
}

export interface SpecialTokens {
  bos?: number | null;
  eos?: number | readonly number[] | null;
  pad?: number | null;
}

/** What transformers calls a DType. */
export function dtypeName(dtype: DType): string {
  return dtype === "f32" ? "float32" : "bfloat16";
}

/** The config.json of a new model, in the styles of transformers 4 and 5 at once. parseModelConfig reads it back. */
export function newModelConfigJson(config: ModelConfig, tokens: SpecialTokens, dtype: DType): Record<string, unknown> {
  const json: Record<string, unknown> = {
    architectures: [architectures[config.family]],
    model_type: config.family,
    vocab_size: config.vocabSize,
    hidden_size: config.hiddenSize,
    intermediate_size: config.intermediateSize,
    num_hidden_layers: config.layers,
    num_attention_heads: config.heads,
    num_key_value_heads: config.kvHeads,
    head_dim: config.headDim,
    hidden_act: "silu",
    rms_norm_eps: config.normEps,
    max_position_embeddings: config.maxPositions,
    tie_word_embeddings: config.tiedHead,
    attention_dropout: 0,
    initializer_range: 0.02,
    use_cache: true,
    bos_token_id: tokens.bos ?? null,
    eos_token_id: tokens.eos ?? null,
    pad_token_id: tokens.pad ?? null,
    dtype: dtypeName(dtype),
    torch_dtype: dtypeName(dtype),
    ...ropeJson({ theta: config.ropeTheta, scaling: config.ropeScaling }),
    ...familyJson(config),
  };
  return json;
}

function familyJson(config: ModelConfig): Record<string, unknown> {
  const window = Math.max(0, ...config.windows);
  switch (config.family) {
    case "llama":
      return { attention_bias: config.qkvBias, mlp_bias: false, pretraining_tp: 1 };
    case "mistral":
      return { sliding_window: window || null };
    default: {
      const types = config.windows.map((one) => (one > 0 ? "sliding_attention" : "full_attention"));
      const bias = config.family === "qwen3" ? { attention_bias: config.qkvBias } : {};
      return {
        ...bias,
        use_sliding_window: window > 0,
        sliding_window: window || null,
        max_window_layers: window > 0 ? config.windows.findIndex((one) => one > 0) : config.layers,
        layer_types: types,
      };
    }
  }
}
