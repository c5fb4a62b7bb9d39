import type { DType, TensorSource } from "@tempora/engine/model";
import type { Checkpoint } from "./checkpoint.ts";
import { encodeBF16 } from "./gguf/encode.ts";
import type { NamedTensor } from "./safetensors-writer.ts";
import { saveCheckpoint } from "./save.ts";

export interface CopyOptions {
  /** Default: the checkpoint's own. */
  dtype?: DType;
  /** Further files by name; they win over the checkpoint's. */
  files?: Record<string, string>;
  signal?: AbortSignal | undefined;
  /** Counts tensors. */
  onProgress?: (done: number, total: number) => void;
}

/**
 * Writes a checkpoint, whatever it was opened from, as a Hugging Face folder: config.json, safetensors, tokenizer files; whole
 * or not at all, a tensor in memory at a time. To bf16 values are rounded to nearest, ties to even.
 */
export async function saveCopy(checkpoint: Checkpoint, folder: string, options: CopyOptions = {}): Promise<void> {
  const dtype = options.dtype ?? checkpoint.dtype;
  const { config, raw, companion } = checkpoint;
  const { files = {} } = options;
  await saveCheckpoint(folder, {
    config,
    raw,
    dtype,
    tensors: converted(checkpoint, dtype, options),
    companion,
    files,
  });
}

async function* converted(checkpoint: Checkpoint, dtype: DType, options: CopyOptions): AsyncGenerator<NamedTensor> {
  const sources = await Array.fromAsync(checkpoint.tensors());
  for (const [done, source] of sources.entries()) {
    options.signal?.throwIfAborted();
    yield { name: source.name, dtype, shape: source.shape, bytes: await readAs(source, dtype) };
    options.onProgress?.(done + 1, sources.length);
  }
}

/** A tensor's bytes in an element type. */
export async function readAs(source: TensorSource, dtype: DType): Promise<Uint8Array> {
  if (source.dtype === dtype) return source.read();
  const values = await readFloats(source);
  if (dtype === "f32") return new Uint8Array(values.buffer);
  const out = new Uint8Array(2 * values.length);
  encodeBF16(values, out);
  return out;
}

/** A tensor's values as float32. */
export async function readFloats(source: TensorSource): Promise<Float32Array> {
  const bytes = await source.read();
  if (source.dtype === "f32") return new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
  const words = new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.length / 2);
  const values = new Float32Array(words.length);
  const bits = new Uint32Array(values.buffer);
  for (let i = 0; i < words.length; i++) bits[i] = words[i]! << 16;
  return values;
}
