import { open } from "node:fs/promises";
import { ggufBlockFormats, type ModelConfig, parameterShapes, type TensorSource } from "@tempora/engine/model";
import { fileError, TemporaError } from "@tempora/errors";
import { blockBytesOf } from "../block-bytes.ts";
import type { Checkpoint } from "../checkpoint.ts";
import { newModelConfigJson, parseModelConfig } from "../config.ts";
import { statedEndTokens } from "../end-tokens.ts";
import { blockFormats } from "./blocks.ts";
import { ggufModelConfig, refuseArchitecture } from "./config.ts";
import { type GgufFile, type GgufTensor, readGguf } from "./file.ts";
import { ggufName, permutedHeads } from "./names.ts";
import { permuteRows } from "./permutation.ts";
import { specialIds, tokenizerFiles } from "./tokenizer.ts";

/** Bytes of a file that are in memory while they are decoded. */
const chunkBytes = 1 << 24;

const ropeDivisorsName = "rope_freqs.weight";

/**
 * Opens a GGUF model as the Hugging Face checkpoint that it was converted from: config, tokenizer and chat template from the
 * metadata, tensors under their own names, unpermuted, and decoded to f32 when they are read (BF16 stays).
 * @param path What the user named, for messages: the file, one of its parts, or the folder that it lies in.
 */
export async function openGguf(file: string, path: string): Promise<Checkpoint> {
  const gguf = await readGguf(file, refuseArchitecture);
  const { metadata, tensors } = gguf;
  const divisors = tensors.get(ropeDivisorsName);
  const ropeDivisors = divisors === undefined ? null : new Float32Array((await decode(divisors)).buffer);
  const described = ggufModelConfig(metadata, { tensors, ropeDivisors });
  const files = tokenizerFiles(metadata);
  const special = specialIds(metadata);
  const sources = tensorSources(gguf, described);
  // Converters widen norms to F32: they do not make a BF16 model an f32 one.
  const dtype = sources.every((source) => source.shape.length === 1 || source.dtype === "bf16") ? "bf16" : "f32";
  const ids = { bos: special.bos, eos: special.ends, pad: special.padding };
  const raw = newModelConfigJson(described, ids, dtype);
  const generation = JSON.parse(files["generation_config.json"]!) as Record<string, unknown>;
  return {
    path,
    format: "gguf",
    files: gguf.files,
    name: path,
    config: parseModelConfig(raw, gguf.file),
    raw,
    generation,
    endTokens: statedEndTokens(raw, generation, gguf.file),
    dtype,
    blockBytes: blockBytesOf(sources),
    tensors: () => sources,
    companion: async (name) => (Object.hasOwn(files, name) ? new TextEncoder().encode(files[name]) : null),
  };
}

/** Every parameter in the engine's order. */
function tensorSources({ file, metadata, tensors }: GgufFile, config: ModelConfig): TensorSource[] {
  const permuted = metadata.string("general.architecture") === "llama";
  const shapes = parameterShapes(config);
  const known = new Set([ropeDivisorsName]);
  const sources = shapes.map(({ name, shape }) => {
    const tensor = tensors.get(ggufName(name));
    known.add(ggufName(name));
    if (tensor === undefined || tensor.shape.join() !== shape.join()) {
      const found = tensor === undefined ? "is missing" : `has shape [${tensor.shape.join(", ")}]`;
      throw new TemporaError(`This tensor ${found}; the metadata ask for [${shape.join(", ")}]`, {
        where: { file: tensor?.file ?? file, field: ggufName(name) },
        remedy: "Fetch the file again, or convert the model again with a current convert_hf_to_gguf.py.",
      });
    }
    const which = permuted ? permutedHeads(name) : null;
    return tensorSource(name, tensor, which === null ? null : { heads: config[which], headDim: config.headDim });
  });
  const unexpected = [...tensors.keys()].filter((name) => !known.has(name));
  if (unexpected.length > 0) {
    throw new TemporaError(`The model has ${unexpected.length} tensors that its architecture does not account for`, {
      where: { file, field: unexpected[0]! },
      remedy: "It was changed in a way that is not computed: choose the plain model.",
    });
  }
  return sources;
}

interface Heads {
  heads: number;
  headDim: number;
}

function tensorSource(name: string, tensor: GgufTensor, permuted: Heads | null): TensorSource {
  const type = blockFormats[tensor.type]!.name;
  const kept = type === "BF16";
  const format = ggufBlockFormats.find((known) => known === type);
  const unpermuted = (bytes: Uint8Array) =>
    permuted === null ? bytes : permuteRows(bytes, { ...permuted, to: "huggingface" });
  return {
    name,
    dtype: kept ? "bf16" : "f32",
    shape: tensor.shape,
    file: tensor.file,
    read: async () => unpermuted(kept ? await readBytes(tensor) : await decode(tensor)),
    fresh: true,
    // Rows hold whole blocks, so that they are permuted as they are.
    blocks: format && { format, byteLength: tensor.byteLength, read: async () => unpermuted(await readBytes(tensor)) },
  };
}

async function readBytes(tensor: GgufTensor): Promise<Uint8Array> {
  const bytes = new Uint8Array(tensor.byteLength);
  await readInto(tensor, (from, chunk) => bytes.set(chunk, from));
  return bytes;
}

/** The float32 values of a tensor, little-endian: a chunk of its bytes at a time. */
async function decode(tensor: GgufTensor): Promise<Uint8Array> {
  const format = blockFormats[tensor.type]!;
  const values = new Float32Array((tensor.byteLength / format.bytes) * format.elements);
  await readInto(tensor, (from, chunk) => {
    const first = (from / format.bytes) * format.elements;
    format.decode(chunk, values.subarray(first, first + (chunk.length / format.bytes) * format.elements));
  });
  return new Uint8Array(values.buffer);
}

/** Gives a tensor's bytes in chunks of whole blocks. A chunk is valid during the call. */
async function readInto(tensor: GgufTensor, use: (from: number, chunk: Uint8Array) => void): Promise<void> {
  const { bytes } = blockFormats[tensor.type]!;
  const step = Math.max(1, Math.floor(chunkBytes / bytes)) * bytes;
  const buffer = new Uint8Array(Math.min(step, tensor.byteLength));
  try {
    const handle = await open(tensor.file, "r");
    try {
      for (let from = 0; from < tensor.byteLength; from += step) {
        const chunk = buffer.subarray(0, Math.min(step, tensor.byteLength - from));
        for (let done = 0; done < chunk.length; ) {
          const { bytesRead } = await handle.read(chunk, done, chunk.length - done, tensor.offset + from + done);
          if (bytesRead === 0) throw shortened(tensor);
          done += bytesRead;
        }
        use(from, chunk);
      }
    } finally {
      await handle.close();
    }
  } catch (error) {
    throw error instanceof TemporaError ? error : fileError(error, "Cannot read the weights", tensor.file);
  }
}

function shortened(tensor: GgufTensor): TemporaError {
  return new TemporaError("The file became shorter while it was read", {
    where: { file: tensor.file, field: tensor.name },
    remedy: "Fetch it again.",
  });
}
