import { existsSync } from "node:fs";
import { join } from "node:path";
import { type DType, type ModelConfig, parameterShapes } from "@tempora/engine/model";
import { type FileReader, TemporaError } from "@tempora/errors";
import { dtypeName, parseModelConfig } from "./config.ts";
import { statedEndTokens } from "./end-tokens.ts";
import { writeFolder, writeSynced } from "./folder-swap.ts";
import { readJsonObject } from "./json-file.ts";
import { companionFiles } from "./layout.ts";
import { type NamedTensor, SafetensorsWriter, type TensorLayout, tensorBytes } from "./safetensors-writer.ts";
import { indexFile } from "./weights.ts";

export interface SaveOptions {
  config: ModelConfig;
  /** The config.json to write; its element type is corrected. It must describe `config`. */
  raw: Record<string, unknown>;
  dtype: DType;
  /** Every parameter of the model once, in any order, in `dtype`; of quantized ones all that is stored of them. */
  tensors: AsyncIterable<NamedTensor> | Iterable<NamedTensor>;
  /** Whose tokenizer and generation files are taken over. */
  companion?: FileReader;
  /** Ids that end what the model has learnt to write: generation_config.json states those that it does not yet. */
  endTokens?: readonly number[];
  /** Further files by name; they win over companions. */
  files?: Record<string, string>;
  /** What is stored of parameters that are not in `dtype`, by their names, and what config.json says of them. */
  quantized?: { layout: ReadonlyMap<string, readonly TensorLayout[]>; config: Record<string, unknown> };
  /** A shard is closed before it grows beyond this. Default 5 GB. */
  maxShardBytes?: number;
}

const defaultShardBytes = 5e9;

/**
 * Writes a checkpoint that transformers, TRL and vLLM open; whole or not at all: everything goes to a folder beside it,
 * is flushed to the disk and then renamed. An existing folder is replaced only when it is empty or a checkpoint.
 */
export async function saveCheckpoint(folder: string, options: SaveOptions): Promise<void> {
  const raw = correctedConfig(options);
  await writeFolder(folder, {
    what: "checkpoint",
    write: async (partial) => {
      await writeWeights(partial, options);
      await writeCompanions(partial, options);
      await stateEndTokens(partial, raw, options);
      await writeSynced(join(partial, "config.json"), `${JSON.stringify(raw, null, 2)}\n`);
      for (const [name, text] of Object.entries(options.files ?? {})) await writeSynced(join(partial, name), text);
    },
  });
}

/** config.json with the element type of the weights, checked to describe the very model that is saved. */
function correctedConfig({ config, raw, dtype, quantized }: SaveOptions): Record<string, unknown> {
  // Whatever it was read from: what is written here is plain, or quantized as told.
  const { quantization_config: _, ...plain } = raw;
  const corrected: Record<string, unknown> = quantized ? { ...plain, quantization_config: quantized.config } : plain;
  const name = dtypeName(dtype);
  if ("torch_dtype" in raw || !("dtype" in raw)) corrected.torch_dtype = name;
  if ("dtype" in raw || !("torch_dtype" in raw)) corrected.dtype = name;
  const described = parseModelConfig(corrected, "config.json");
  for (const key of Object.keys(described) as (keyof ModelConfig)[]) {
    if (JSON.stringify(described[key]) !== JSON.stringify(config[key])) {
      const shown = `${JSON.stringify(described[key])} instead of ${JSON.stringify(config[key])}`;
      throw new TemporaError(`The config.json to save describes another model: ${shown}`, {
        where: { field: key },
        remedy: "Save with the raw config that the model was loaded with.",
      });
    }
  }
  return corrected;
}

async function writeWeights(folder: string, options: SaveOptions): Promise<void> {
  const shards = planShards(options);
  const names = shardNames(shards.length);
  const writers: SafetensorsWriter[] = [];
  try {
    for (const [i, shard] of shards.entries()) {
      writers.push(await SafetensorsWriter.create(join(folder, names[i]!), shard));
    }
    for await (const tensor of options.tensors) {
      // A tensor that no shard waits for is refused, by name, by the first one.
      const writer = writers.find((candidate) => candidate.has(tensor.name)) ?? writers[0]!;
      await writer.write(tensor);
    }
    for (const writer of writers) await writer.close();
  } finally {
    for (const writer of writers) await writer.abandon();
  }
  if (shards.length > 1) await writeSynced(join(folder, indexFile), indexJson(options.config, shards, names));
}

/** Parameters in their own order, a new shard whenever the next one would not fit. */
function planShards({ config, dtype, quantized, maxShardBytes = defaultShardBytes }: SaveOptions): TensorLayout[][] {
  const shards: TensorLayout[][] = [[]];
  let filled = 0;
  for (const { name, shape } of parameterShapes(config)) {
    const stored = quantized?.layout.get(name) ?? [{ name, shape, dtype }];
    const bytes = stored.reduce((sum, tensor) => sum + tensorBytes(tensor), 0);
    if (filled > 0 && filled + bytes > maxShardBytes) {
      shards.push([]);
      filled = 0;
    }
    shards.at(-1)!.push(...stored);
    filled += bytes;
  }
  return shards;
}

function shardNames(count: number): string[] {
  if (count === 1) return ["model.safetensors"];
  const five = (number: number) => String(number).padStart(5, "0");
  return Array.from({ length: count }, (_, i) => `model-${five(i + 1)}-of-${five(count)}.safetensors`);
}

function indexJson(config: ModelConfig, shards: readonly TensorLayout[][], names: readonly string[]): string {
  const all = shards.flat();
  const metadata = {
    total_parameters: parameterShapes(config).reduce(
      (sum, { shape }) => sum + shape.reduce((product, extent) => product * extent, 1),
      0,
    ),
    total_size: all.reduce((sum, tensor) => sum + tensorBytes(tensor), 0),
  };
  const owners = shards.flatMap((shard, i) => shard.map(({ name }) => [name, names[i]!] as const));
  owners.sort(([a], [b]) => (a < b ? -1 : 1));
  return `${JSON.stringify({ metadata, weight_map: Object.fromEntries(owners) }, null, 2)}\n`;
}

async function writeCompanions(folder: string, { companion, files = {} }: SaveOptions): Promise<void> {
  if (companion === undefined) return;
  for (const name of companionFiles) {
    if (name in files) continue;
    const content = await companion(name);
    if (content !== null) await writeSynced(join(folder, name), content);
  }
}

/** Other programs read the end tokens from the files alone, and would not stop where the model does. */
async function stateEndTokens(
  folder: string,
  raw: Record<string, unknown>,
  { endTokens = [] }: SaveOptions,
): Promise<void> {
  const file = join(folder, "generation_config.json");
  const generation = existsSync(file) ? await readJsonObject(file, "the generation config") : null;
  const stated = statedEndTokens(raw, generation, folder);
  if (endTokens.every((id) => stated.includes(id))) return;
  const ids = [...new Set([...stated, ...endTokens])].sort((a, b) => a - b);
  await writeSynced(file, `${JSON.stringify({ ...generation, eos_token_id: ids }, null, 2)}\n`);
}
