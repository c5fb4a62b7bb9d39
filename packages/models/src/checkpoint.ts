import { createHash, type Hash } from "node:crypto";
import { existsSync } from "node:fs";
import { readFile, stat } from "node:fs/promises";
import { join, resolve } from "node:path";
import {
  type DType,
  type ModelConfig,
  type ModelSource,
  type ParameterShape,
  parameterShapes,
  type TensorSource,
} from "@tempora/engine/model";
import { fileError, systemErrorCode, TemporaError } from "@tempora/errors";
import { readModelConfig } from "./config.ts";
import { statedEndTokens } from "./end-tokens.ts";
import { readJsonObject } from "./json-file.ts";
import { replacedFolder, tokenizerFiles } from "./layout.ts";
import type { SafetensorsTensor } from "./safetensors.ts";
import { readWeights } from "./weights.ts";

/** A checkpoint on disk whose config, tensor names, shapes and element types were checked. Weights are read when asked for. */
export interface Checkpoint extends ModelSource {
  folder: string;
  /** config.json as it stands. */
  raw: Record<string, unknown>;
  /** generation_config.json as it stands. */
  generation: Record<string, unknown> | null;
  /** Ids that end a completion, as generation_config.json and config.json state them. */
  endTokens: number[];
}

const tiedHeadName = "lm_head.weight";
const embeddingName = "model.embed_tokens.weight";

/**
 * Opens a Hugging Face checkpoint folder: config.json and model.safetensors, or its shards by their index.
 * @throws TemporaError for a missing, unexpected, misshapen or wrongly typed tensor, by name and file.
 */
export async function openCheckpoint(folder: string): Promise<Checkpoint> {
  await checkFolder(folder);
  const { config, raw } = await readModelConfig(folder);
  const found = await readWeights(folder);
  const shapes = parameterShapes(config);
  const tensors = shapes.map((shape) => expectTensor(shape, found, folder));
  refuseUnexpected(found, shapes, config, folder);
  if (config.tiedHead) await checkTiedHead(found, folder);
  const generationFile = join(folder, "generation_config.json");
  const generation = existsSync(generationFile) ? await readJsonObject(generationFile, "the generation config") : null;
  return {
    folder,
    name: folder,
    config,
    raw,
    generation,
    endTokens: statedEndTokens(raw, generation, folder),
    dtype: statedDType(raw) ?? tensors[0]!.dtype,
    tensors: () => tensors,
  };
}

async function checkFolder(folder: string): Promise<void> {
  try {
    if ((await stat(folder)).isDirectory()) return;
  } catch (error) {
    const replaced = replacedFolder(folder);
    if (systemErrorCode(error) === "ENOENT" && existsSync(replaced)) {
      throw new TemporaError("The checkpoint is missing: saving over it was cut off at the last moment", {
        where: { file: folder },
        remedy: `Its previous state lies in ${replaced}: rename that folder back.`,
        cause: error,
      });
    }
    throw fileError(error, "Cannot open the checkpoint", folder);
  }
  throw new TemporaError("A checkpoint is a folder, this is a file", {
    where: { file: folder },
    remedy: "Name the folder that holds config.json.",
  });
}

function expectTensor(
  expected: ParameterShape,
  found: ReadonlyMap<string, SafetensorsTensor>,
  folder: string,
): TensorSource {
  const tensor = found.get(expected.name);
  if (tensor === undefined) {
    throw new TemporaError(`The checkpoint lacks the tensor ${expected.name} of shape ${show(expected.shape)}`, {
      where: { file: folder, field: expected.name },
      remedy: "Take the config.json that belongs to these weights, or fetch the checkpoint again.",
    });
  }
  const where = { file: tensor.file, field: tensor.name };
  if (show(tensor.shape) !== show(expected.shape)) {
    throw new TemporaError(
      `This tensor has shape ${show(tensor.shape)}, config.json asks for ${show(expected.shape)}`,
      {
        where,
        remedy: "Take the config.json that belongs to these weights.",
      },
    );
  }
  return {
    name: tensor.name,
    dtype: engineDType(tensor),
    shape: tensor.shape,
    file: tensor.file,
    read: () => tensor.read(),
  };
}

function engineDType(tensor: SafetensorsTensor): DType {
  if (tensor.dtype === "F32") return "f32";
  if (tensor.dtype === "BF16") return "bf16";
  throw new TemporaError(`This tensor is ${tensor.dtype}; Tempora computes in F32 and BF16`, {
    where: { file: tensor.file, field: tensor.name },
    remedy: 'Convert it: AutoModelForCausalLM.from_pretrained(folder, dtype="bfloat16").save_pretrained(out).',
  });
}

function refuseUnexpected(
  found: ReadonlyMap<string, SafetensorsTensor>,
  shapes: readonly ParameterShape[],
  config: ModelConfig,
  folder: string,
): void {
  const expected = new Set(shapes.map((shape) => shape.name));
  const unexpected = [...found.keys()].filter((name) => {
    if (expected.has(name) || (config.tiedHead && name === tiedHeadName)) return false;
    // A buffer that old versions stored; it follows from the config.
    return !name.endsWith("rotary_emb.inv_freq");
  });
  if (unexpected.length === 0) return;
  const shown = unexpected.slice(0, 3).join(", ") + (unexpected.length > 3 ? ", ..." : "");
  throw new TemporaError(
    `The checkpoint has ${unexpected.length} tensors that its config.json does not account for: ${shown}`,
    {
      where: { file: found.get(unexpected[0]!)?.file ?? folder, field: unexpected[0]! },
      remedy:
        "Take the config.json that belongs to these weights; adapters and extra heads must be merged or removed first.",
    },
  );
}

/** transformers ties the head only when a stored one equals the embedding; so it must, or the two readings differ. */
async function checkTiedHead(found: ReadonlyMap<string, SafetensorsTensor>, folder: string): Promise<void> {
  const head = found.get(tiedHeadName);
  const embedding = found.get(embeddingName);
  if (head === undefined || embedding === undefined) return;
  if (!(await sameBytes(head, embedding))) {
    throw new TemporaError(
      "The head is tied to the embedding by config.json, but the checkpoint stores a different one",
      {
        where: { file: head.file ?? folder, field: tiedHeadName },
        remedy: 'Set "tie_word_embeddings": false in config.json to use the stored head, or remove the tensor.',
      },
    );
  }
}

async function sameBytes(a: SafetensorsTensor, b: SafetensorsTensor): Promise<boolean> {
  if (a.dtype !== b.dtype || a.byteLength !== b.byteLength) return false;
  for await (const [x, y] of zipChunks(a, b)) {
    if (Buffer.compare(x, y) !== 0) return false;
  }
  return true;
}

const chunkBytes = 1 << 26;

async function* zipChunks(a: SafetensorsTensor, b: SafetensorsTensor): AsyncGenerator<[Uint8Array, Uint8Array]> {
  for (let from = 0; from < a.byteLength; from += chunkBytes) {
    const to = Math.min(from + chunkBytes, a.byteLength);
    yield [await a.read(from, to), await b.read(from, to)];
  }
}

/** The element type that config.json states, under its new or its old name; null for none or one that is not ours. */
function statedDType(raw: Record<string, unknown>): DType | null {
  const stated = raw.dtype ?? raw.torch_dtype;
  if (stated === "float32" || stated === "torch.float32") return "f32";
  if (stated === "bfloat16" || stated === "torch.bfloat16") return "bf16";
  return null;
}

function show(shape: readonly number[]): string {
  return `[${shape.join(", ")}]`;
}

/**
 * SHA-256 (hex) of the content that decides a checkpoint's outputs: its config as the engine reads it, its end tokens, the
 * bytes of every parameter and the tokenizer files. How the weights are split into files does not matter.
 */
export async function checkpointHash(folder: string): Promise<string> {
  const checkpoint = await openCheckpoint(folder);
  const hash = createHash("sha256");
  const { config, dtype, endTokens } = checkpoint;
  addField(
    hash,
    "config",
    JSON.stringify([Object.entries(config).sort(([a], [b]) => (a < b ? -1 : 1)), dtype, endTokens]),
  );
  for await (const tensor of checkpoint.tensors()) {
    addField(hash, `${tensor.name} ${tensor.dtype} ${show(tensor.shape)}`, await tensor.read());
  }
  for (const name of tokenizerFiles) {
    const file = resolve(folder, name);
    if (existsSync(file)) addField(hash, name, await readFile(file));
  }
  return hash.digest("hex");
}

/** Length before content, so that no two sequences of fields give the same bytes. */
function addField(hash: Hash, label: string, content: string | Uint8Array): void {
  const bytes = typeof content === "string" ? Buffer.from(content) : content;
  hash.update(`${Buffer.byteLength(label)}:${label}${bytes.byteLength}:`);
  hash.update(bytes);
}
