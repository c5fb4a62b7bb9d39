import { existsSync } from "node:fs";
import { join } from "node:path";
import {
  type DType,
  type ModelConfig,
  type ParameterShape,
  parameterShapes,
  type TensorSource,
} from "@tempora/engine/model";
import { folderReader, TemporaError } from "@tempora/errors";
import { isNf4Part, nf4Tensor } from "./bitsandbytes/open.ts";
import { blockBytesOf } from "./block-bytes.ts";
import type { Checkpoint } from "./checkpoint.ts";
import { readModelConfig } from "./config.ts";
import { statedEndTokens } from "./end-tokens.ts";
import { widenHalves } from "./half.ts";
import { readJsonObject } from "./json-file.ts";
import { companionFiles } from "./layout.ts";
import type { SafetensorsTensor } from "./safetensors.ts";
import { indexFile, readWeights } from "./weights.ts";

const tiedHeadName = "lm_head.weight";
const embeddingName = "model.embed_tokens.weight";

/**
 * Opens a Hugging Face checkpoint folder: config.json and model.safetensors, or its shards by their index; matrices may be in
 * bitsandbytes' NF4, which is read as f32. Whatever else lies
 * there (a README, .git, .cache, original/, other formats) is not looked at.
 * @throws TemporaError for a missing, unexpected, misshapen or wrongly typed tensor, by name and file.
 */
export async function openFolder(folder: string): Promise<Checkpoint> {
  const { config, raw } = await readModelConfig(folder);
  const found = await readWeights(folder);
  const shapes = parameterShapes(config);
  const tensors: TensorSource[] = [];
  for (const shape of shapes) tensors.push((await nf4Tensor(shape, found)) ?? expectTensor(shape, found, folder));
  refuseUnexpected(found, shapes, config, folder);
  if (config.tiedHead) await checkTiedHead(found, folder);
  const generationFile = join(folder, "generation_config.json");
  const generation = existsSync(generationFile) ? await readJsonObject(generationFile, "the generation config") : null;
  return {
    path: folder,
    format: "huggingface",
    files: filesOf(folder, found),
    name: folder,
    config,
    raw,
    generation,
    endTokens: statedEndTokens(raw, generation, folder),
    dtype: statedDType(raw) ?? widest(tensors),
    blockBytes: blockBytesOf(tensors),
    tensors: () => tensors,
    companion: folderReader(folder),
  };
}

function filesOf(folder: string, found: ReadonlyMap<string, SafetensorsTensor>): string[] {
  const weights = new Set([...found.values()].map(({ file }) => file));
  const others = ["config.json", indexFile, ...companionFiles].map((name) => join(folder, name));
  // An index beside a single file is not read, and may name shards that are not there.
  const indexed = !weights.has(join(folder, "model.safetensors"));
  return [...weights, ...others.filter((file) => existsSync(file) && (indexed || file !== join(folder, indexFile)))];
}

/** bf16 only where every tensor is: anything else would lose digits. */
function widest(tensors: readonly TensorSource[]): DType {
  return tensors.every(({ dtype }) => dtype === "bf16") ? "bf16" : "f32";
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
  return { name: tensor.name, shape: tensor.shape, file: tensor.file, ...readAs(tensor) };
}

/** F16 is read as f32, which holds it exactly; bf16 would not. */
export function readAs(tensor: SafetensorsTensor): Pick<TensorSource, "dtype" | "read" | "fresh"> {
  if (tensor.dtype === "F32") return { dtype: "f32", read: () => tensor.read(), fresh: true };
  if (tensor.dtype === "BF16") return { dtype: "bf16", read: () => tensor.read(), fresh: true };
  if (tensor.dtype === "F16") return { dtype: "f32", read: async () => widenHalf(await tensor.read()), fresh: true };
  throw new TemporaError(`This tensor is ${tensor.dtype}; F32, F16 and BF16 are read`, {
    where: { file: tensor.file, field: tensor.name },
    remedy: 'Convert it: AutoModelForCausalLM.from_pretrained(folder, dtype="bfloat16").save_pretrained(out).',
  });
}

function widenHalf(bytes: Uint8Array): Uint8Array {
  const values = new Float32Array(bytes.length / 2);
  widenHalves(bytes, values);
  return new Uint8Array(values.buffer);
}

function refuseUnexpected(
  found: ReadonlyMap<string, SafetensorsTensor>,
  shapes: readonly ParameterShape[],
  config: ModelConfig,
  folder: string,
): void {
  const expected = new Set(shapes.map((shape) => shape.name));
  const unexpected = [...found.keys()].filter((name) => {
    if (expected.has(name) || isNf4Part(name, expected) || (config.tiedHead && name === tiedHeadName)) return false;
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

/** The element type that config.json states, under its new or its old name; null for none, or one the engine lacks (float16). */
function statedDType(raw: Record<string, unknown>): DType | null {
  const stated = raw.dtype ?? raw.torch_dtype;
  if (stated === "float32" || stated === "torch.float32") return "f32";
  if (stated === "bfloat16" || stated === "torch.bfloat16") return "bf16";
  return null;
}

function show(shape: readonly number[]): string {
  return `[${shape.join(", ")}]`;
}
