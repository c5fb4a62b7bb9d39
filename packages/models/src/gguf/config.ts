import type { Family, ModelConfig, RopeScaling } from "@tempora/engine/model";
import { TemporaError } from "@tempora/errors";
import { otherArchitectures } from "../remedies.ts";
import type { GgufTensor } from "./file.ts";
import type { GgufMetadata } from "./metadata.ts";
import { scalingOfDivisors, shortest } from "./rope-factors.ts";

/** The architectures that are read. Llama, Mistral and SmolLM all convert as `llama`. */
const families: Readonly<Record<string, Family>> = { llama: "llama", qwen2: "qwen2", qwen3: "qwen3" };

/** Refuses by name what the engine does not compute. */
export function refuseArchitecture(metadata: GgufMetadata): void {
  const architecture = metadata.string("general.architecture");
  const type = metadata.optionalString("general.type") ?? "model";
  const where = { file: metadata.file, field: "general.architecture" };
  const choose = "Choose a Llama, Mistral, SmolLM, Qwen2 or Qwen3 model, as GGUF or as a Hugging Face folder.";
  const other = `${choose} ${otherArchitectures}.`;
  if (type !== "model") {
    throw new TemporaError(`This GGUF file holds ${/^[aeiou]/.test(type) ? "an" : "a"} ${type}, not a model`, {
      where: { file: metadata.file, field: "general.type" },
      remedy: choose,
    });
  }
  if (!Object.hasOwn(families, architecture)) {
    throw new TemporaError(`The architecture ${architecture} is not computed`, { where, remedy: other });
  }
  if (metadata.number(`${architecture}.expert_count`, 0) > 0) {
    throw new TemporaError(`A mixture of experts (${architecture}) is not computed`, { where, remedy: other });
  }
}

/** What of a model's shape is told by its tensors. */
export interface TensorFacts {
  tensors: ReadonlyMap<string, GgufTensor>;
  /** Values of rope_freqs.weight. */
  ropeDivisors: Float32Array | null;
}

/** The model's shape from the metadata of a GGUF file. */
export function ggufModelConfig(metadata: GgufMetadata, { tensors, ropeDivisors }: TensorFacts): ModelConfig {
  const architecture = metadata.string("general.architecture");
  const key = (name: string) => `${architecture}.${name}`;
  const heads = count(metadata, key("attention.head_count"));
  const hiddenSize = count(metadata, key("embedding_length"));
  const layers = count(metadata, key("block_count"));
  // Before anything is made for each layer: a header of bytes may ask for billions.
  if (layers > tensors.size) {
    metadata.fail(key("block_count"), `asks for ${layers} layers, and the file has ${tensors.size} tensors`);
  }
  const headDim = readHeadDim(metadata, key, Math.floor(hiddenSize / heads));
  const ropeTheta = shortest(metadata.number(key("rope.freq_base"), 10_000));
  const window = metadata.number(key("attention.sliding_window"), 0);
  const family = readFamily(metadata, architecture, window);
  const embedding = tensors.get("token_embd.weight");
  if (embedding === undefined) return missingTensor(metadata.file, "token_embd.weight");
  return {
    family,
    vocabSize: embedding.shape[0] ?? 0,
    hiddenSize,
    intermediateSize: count(metadata, key("feed_forward_length")),
    layers,
    heads,
    kvHeads: metadata.has(key("attention.head_count_kv")) ? count(metadata, key("attention.head_count_kv")) : heads,
    headDim,
    normEps: shortest(metadata.number(key("attention.layer_norm_rms_epsilon"))),
    tiedHead: !tensors.has("output.weight"),
    qkvBias: tensors.has("blk.0.attn_q.bias"),
    outputBias: tensors.has("blk.0.attn_output.bias"),
    qkNorm: family === "qwen3",
    windows: new Array<number>(layers).fill(window),
    ropeTheta,
    ropeScaling: readScaling(metadata, key, { ropeDivisors, ropeTheta, headDim }),
    maxPositions: count(metadata, key("context_length")),
  };
}

function missingTensor(file: string, name: string): never {
  throw new TemporaError(`The model lacks the tensor ${name}`, {
    where: { file, field: name },
    remedy: "Fetch the whole file again.",
  });
}

/** A positive integer. Some architectures give one a layer; these do not. */
function count(metadata: GgufMetadata, key: string): number {
  const value = metadata.number(key);
  return Number.isSafeInteger(value) && value > 0 ? value : metadata.fail(key, `must be above 0, not ${value}`);
}

function readFamily(metadata: GgufMetadata, architecture: string, window: number): Family {
  const family = families[architecture] as Family;
  if (window === 0) return family;
  if (family === "llama") return "mistral";
  const key = `${architecture}.attention.sliding_window`;
  return metadata.fail(
    key,
    "asks for a sliding window without saying in which layers",
    "Fetch the model as a Hugging Face folder: its config.json says it.",
  );
}

function readHeadDim(metadata: GgufMetadata, key: (name: string) => string, fallback: number): number {
  const headDim = metadata.number(key("attention.key_length"), fallback);
  for (const [name, what] of [
    ["attention.value_length", "values and keys of different sizes"],
    ["rope.dimension_count", "rotary positions on a part of each head"],
  ] as const) {
    if (metadata.number(key(name), headDim) !== headDim) {
      metadata.fail(key(name), `asks for ${what}, which Tempora does not compute`, "Choose a model without it.");
    }
  }
  return headDim;
}

function readScaling(
  metadata: GgufMetadata,
  key: (name: string) => string,
  rope: { ropeDivisors: Float32Array | null; ropeTheta: number; headDim: number },
): RopeScaling | null {
  const type = metadata.optionalString(key("rope.scaling.type")) ?? "linear";
  if (type !== "none" && type !== "linear") {
    metadata.fail(
      key("rope.scaling.type"),
      `asks for rope scaling of type "${type}", which Tempora does not compute`,
      "Choose a model without it: llama3 and linear scaling are computed.",
    );
  }
  const old = metadata.number(key("rope.scale_linear"), 1);
  const factor = type === "none" ? 1 : shortest(metadata.number(key("rope.scaling.factor"), old));
  if (rope.ropeDivisors === null) return factor > 1 ? { type: "linear", factor } : null;
  if (rope.ropeDivisors.every((divisor) => divisor === 1)) return null;
  const scaling = scalingOfDivisors(rope.ropeDivisors, rope.ropeTheta, rope.headDim);
  if (scaling !== null && factor <= 1) return scaling;
  throw new TemporaError("The divisors of the rotary frequencies are none that llama3 or linear scaling gives", {
    where: { file: metadata.file, field: "rope_freqs.weight" },
    remedy: "Choose a model with llama3 or linear rope scaling, or without.",
  });
}
