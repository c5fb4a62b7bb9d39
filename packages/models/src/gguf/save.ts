import { mkdir, rename, rm } from "node:fs/promises";
import { dirname } from "node:path";
import { type ModelConfig, type ParameterShape, parameterShapes } from "@tempora/engine/model";
import { fileError, systemErrorCode, TemporaError } from "@tempora/errors";
import type { Checkpoint } from "../checkpoint.ts";
import { readFloats } from "../save-copy.ts";
import type { TensorFile } from "../tensor-file.ts";
import { encodeAs, encodings, type WrittenType } from "./encode.ts";
import { ggufName, permutedHeads } from "./names.ts";
import { permuteRows } from "./permutation.ts";
import { ropeDivisors } from "./rope-factors.ts";
import { tokenizerMetadata } from "./tokenizer-metadata.ts";
import { createGguf, type GgufLayout, type MetadataValue } from "./writer.ts";

/** Types of a written model's matrices. Vectors are always F32, as llama.cpp wants them. */
export type GgufType = WrittenType;

export interface SaveGgufOptions {
  type: GgufType;
  /** general.name. */
  name: string;
  signal?: AbortSignal | undefined;
  /** Counts tensors. */
  onProgress?: (done: number, total: number) => void;
}

const ropeDivisorsName = "rope_freqs.weight";
/** llama.h: llama_ftype. */
const fileTypes: Readonly<Record<GgufType, number>> = { F32: 0, F16: 1, Q8_0: 7, BF16: 32 };

/**
 * Writes a checkpoint as a GGUF file that llama.cpp opens; whole or not at all, a tensor in memory at a time.
 * @returns What llama.cpp will compute otherwise, in words.
 * @throws TemporaError for a model or tokenizer that GGUF, or llama.cpp's reading of it, has no place for.
 */
export async function saveGguf(checkpoint: Checkpoint, file: string, options: SaveGgufOptions): Promise<string[]> {
  const { config, path } = checkpoint;
  refuseInexpressible(config, path);
  const shapes = parameterShapes(config);
  const scaling = config.ropeScaling?.type === "llama3" ? config.ropeScaling : null;
  const layout = shapes.map((shape) => layoutOf(shape, options.type));
  if (scaling !== null) layout.unshift({ name: ropeDivisorsName, type: "F32", shape: [config.headDim / 2] });
  const metadata = { ...modelMetadata(config, options), ...(await tokenizerOf(checkpoint)) };
  const partial = `${file}.partial`;
  let writer: TensorFile | null = null;
  try {
    await mkdir(dirname(file), { recursive: true });
    writer = await createGguf(partial, metadata, layout);
    if (scaling !== null) {
      const divisors = ropeDivisors(config.ropeTheta, config.headDim, scaling);
      await writer.write(ropeDivisorsName, encodeAs("F32", divisors, { file, field: ropeDivisorsName }));
    }
    await writeTensors(checkpoint, writer, layout, options);
    await writer.close();
    await rename(partial, file);
  } catch (error) {
    await writer?.abandon();
    await rm(partial, { force: true });
    throw systemErrorCode(error) === undefined ? error : fileError(error, "Cannot write the model", file);
  }
  return differences(config);
}

/** One window for all layers is written, for whoever reads it; llama.cpp does not, in this architecture. */
function differences({ windows, maxPositions }: ModelConfig): string[] {
  const [window = 0] = windows;
  if (window === 0 || window >= maxPositions) return [];
  return [`llama.cpp takes no notice of the sliding window: its numbers differ beyond ${window} tokens.`];
}

/** llama.cpp computes less than the engine does: what it would compute otherwise is not written. */
function refuseInexpressible(config: ModelConfig, path: string): void {
  const architecture = architectureOf(config);
  const refuse = (what: string): never => {
    throw new TemporaError(`llama.cpp does not compute ${what} in the architecture ${architecture}`, {
      where: { file: path },
      remedy: "Export a Hugging Face folder.",
    });
  };
  if (architecture !== "llama" && config.windows.some((window) => window > 0)) refuse("sliding windows");
  if (architecture !== "llama" && config.ropeScaling?.type === "llama3") refuse("llama3 rope scaling");
  if (architecture === "qwen3" && config.qkvBias) refuse("biases on q, k and v");
}

/** What GGUF calls the family. */
export function architectureOf({ family }: ModelConfig): string {
  return family === "mistral" ? "llama" : family;
}

function layoutOf({ name, shape }: ParameterShape, type: GgufType): GgufLayout {
  if (shape.length === 1) return { name: ggufName(name), type: "F32", shape };
  const fits = (shape.at(-1) ?? 0) % encodings[type].elements === 0;
  // As llama-quantize: rows that are no whole blocks stay F16.
  return { name: ggufName(name), type: fits ? type : "F16", shape };
}

async function writeTensors(
  checkpoint: Checkpoint,
  writer: TensorFile,
  layout: readonly GgufLayout[],
  { signal, onProgress }: SaveGgufOptions,
): Promise<void> {
  const { config } = checkpoint;
  const types = new Map(layout.map(({ name, type }) => [name, type]));
  const sources = await Array.fromAsync(checkpoint.tensors());
  for (const [done, source] of sources.entries()) {
    signal?.throwIfAborted();
    const name = ggufName(source.name);
    const values = ordered(source.name, await readFloats(source), config);
    await writer.write(name, encodeAs(types.get(name)!, values, { file: source.file, field: source.name }));
    onProgress?.(done + 1, sources.length);
  }
}

function ordered(name: string, values: Float32Array, config: ModelConfig): Float32Array {
  const which = architectureOf(config) === "llama" ? permutedHeads(name) : null;
  if (which === null) return values;
  const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
  const moved = permuteRows(bytes, { heads: config[which], headDim: config.headDim, to: "gguf" });
  return new Float32Array(moved.buffer);
}

function modelMetadata(config: ModelConfig, { type, name }: SaveGgufOptions): Record<string, MetadataValue> {
  const architecture = architectureOf(config);
  const u32 = (value: number): MetadataValue => ({ type: "u32", value });
  const f32 = (value: number): MetadataValue => ({ type: "f32", value });
  const text = (value: string): MetadataValue => ({ type: "string", value });
  const shape: Record<string, MetadataValue> = {
    block_count: u32(config.layers),
    context_length: u32(config.maxPositions),
    embedding_length: u32(config.hiddenSize),
    feed_forward_length: u32(config.intermediateSize),
    "attention.head_count": u32(config.heads),
    "attention.head_count_kv": u32(config.kvHeads),
    "attention.key_length": u32(config.headDim),
    "attention.value_length": u32(config.headDim),
    "attention.layer_norm_rms_epsilon": f32(config.normEps),
    "rope.freq_base": f32(config.ropeTheta),
    "rope.dimension_count": u32(config.headDim),
    vocab_size: u32(config.vocabSize),
  };
  const [window = 0] = config.windows;
  if (window > 0) shape["attention.sliding_window"] = u32(window);
  if (config.ropeScaling?.type === "linear") {
    shape["rope.scaling.type"] = text("linear");
    shape["rope.scaling.factor"] = f32(config.ropeScaling.factor);
  }
  return {
    "general.architecture": text(architecture),
    "general.type": text("model"),
    "general.name": text(name),
    "general.file_type": u32(fileTypes[type]),
    "general.quantization_version": u32(2),
    ...Object.fromEntries(Object.entries(shape).map(([key, value]) => [`${architecture}.${key}`, value])),
  };
}

function tokenizerOf(checkpoint: Checkpoint): Promise<Record<string, MetadataValue>> {
  const { companion, path, config, endTokens, raw } = checkpoint;
  const bosId = typeof raw.bos_token_id === "number" ? raw.bos_token_id : null;
  return tokenizerMetadata({ read: companion, path, vocabSize: config.vocabSize, endTokens, bosId });
}
