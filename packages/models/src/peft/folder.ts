import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { join } from "node:path";
import type { AdapterConfig, AdapterSource } from "@tempora/engine/adapter";
import type { TensorSource } from "@tempora/engine/model";
import { canonical, type Json, TemporaError } from "@tempora/errors";
import { writeFolder, writeSynced } from "../folder-swap.ts";
import { readAs } from "../hf-folder.ts";
import { readJsonObject } from "../json-file.ts";
import { readSafetensors } from "../safetensors.ts";
import { type NamedTensor, SafetensorsWriter, type TensorLayout } from "../safetensors-writer.ts";
import { adapterConfigOf } from "./config.ts";

const configFile = "adapter_config.json";
const weightsFile = "adapter_model.safetensors";
/** What PEFT puts before a module's name. */
const prefix = "base_model.model.";

/** An adapter as PEFT keeps it: adapter_config.json and adapter_model.safetensors. */
export interface AdapterFolder extends AdapterSource {
  path: string;
  /** adapter_config.json as it stands. */
  raw: Record<string, unknown>;
  /** base_model_name_or_path: what it was trained over. Null where the file does not say. */
  base: string | null;
}

export function isAdapterFolder(folder: string): boolean {
  return existsSync(join(folder, configFile));
}

/** The files that make an adapter. */
export function adapterFiles(folder: string): string[] {
  return [configFile, weightsFile].map((name) => join(folder, name));
}

/**
 * Opens an adapter folder. Weights (F32, F16 or BF16) are read when asked for.
 * @throws TemporaError for what is no LoRA adapter, or one that the engine does not compute, by file and field.
 */
export async function openAdapter(folder: string): Promise<AdapterFolder> {
  const file = join(folder, configFile);
  if (!existsSync(file) && existsSync(join(folder, "config.json"))) {
    throw new TemporaError("This is a whole model, no LoRA adapter", {
      where: { file: folder },
      remedy: "Give it as the model (--model), or name an adapter's folder, which holds adapter_config.json.",
    });
  }
  const raw = await readJsonObject(file, "the adapter's config");
  const config = adapterConfigOf(raw, file);
  const weights = join(folder, weightsFile);
  if (!existsSync(weights) && existsSync(join(folder, "adapter_model.bin"))) {
    throw new TemporaError("The adapter's weights are pickled", {
      where: { file: join(folder, "adapter_model.bin") },
      remedy: "Open it in PEFT and save_pretrained it again.",
    });
  }
  const found = await readSafetensors(weights);
  const tensors = [...found.tensors.values()].map((tensor): TensorSource => {
    if (!tensor.name.startsWith(prefix)) {
      throw new TemporaError(`The tensor's name does not begin with ${prefix}`, {
        where: { file: weights, field: tensor.name },
        remedy: "Save the adapter by PEFT's save_pretrained.",
      });
    }
    const { shape } = tensor;
    return { name: tensor.name.slice(prefix.length), shape, file: weights, ...readAs(tensor) };
  });
  const base = typeof raw.base_model_name_or_path === "string" ? raw.base_model_name_or_path : null;
  return { path: folder, name: folder, raw, base, config, tensors: () => tensors };
}

/** SHA-256 (hex) of what decides an adapter's outputs: its config as the engine reads it and its tensors. */
export async function adapterHash(folder: string): Promise<string> {
  const { config, tensors } = await openAdapter(folder);
  const hash = createHash("sha256").update(canonical(config as unknown as Json));
  const sorted = (await Array.fromAsync(tensors())).sort((a, b) => (a.name < b.name ? -1 : 1));
  for (const { name, dtype, shape, read } of sorted) {
    hash.update(`\n${name} ${dtype} [${shape.join(", ")}]\n`).update(await read());
  }
  return hash.digest("hex");
}

export interface SaveAdapterOptions {
  config: AdapterConfig;
  /** The adapter_config.json to write. It must describe `config`. */
  raw: Record<string, unknown>;
  /** What tensors() will give, to lay out the file. */
  parameters: readonly { name: string; shape: readonly number[] }[];
  /** Every tensor once, in float32. */
  tensors: AsyncIterable<NamedTensor> | Iterable<NamedTensor>;
}

/** Writes an adapter folder that PEFT, TRL and vLLM open; whole or not at all. An existing adapter is replaced. */
export async function saveAdapter(folder: string, options: SaveAdapterOptions): Promise<void> {
  const described = adapterConfigOf(options.raw, configFile);
  for (const key of Object.keys(described) as (keyof AdapterConfig)[]) {
    if (sameSetting(described[key], options.config[key])) continue;
    throw new TemporaError(
      `The adapter_config.json to save says ${JSON.stringify(described[key])} where the adapter has ${JSON.stringify(options.config[key])}`,
      { where: { field: key }, remedy: "Save with the raw config that the adapter was loaded with." },
    );
  }
  await writeFolder(folder, {
    what: "adapter",
    write: async (partial) => {
      await writeWeights(join(partial, weightsFile), options);
      await writeSynced(join(partial, configFile), `${JSON.stringify(options.raw, null, 2)}\n`);
    },
  });
}

/** Left out, false, 0 and {} are the same; lists are sets. */
function sameSetting(a: unknown, b: unknown): boolean {
  const plain = (value: unknown): string => {
    if (Array.isArray(value)) return JSON.stringify([...value].sort());
    return JSON.stringify(value === undefined || value === false || value === 0 ? null : value === "" ? null : value);
  };
  const empty = (text: string) => (text === "{}" ? "null" : text);
  return empty(plain(a)) === empty(plain(b));
}

async function writeWeights(file: string, { parameters, tensors }: SaveAdapterOptions): Promise<void> {
  const layout: TensorLayout[] = parameters.map(({ name, shape }) => ({ name: prefix + name, shape, dtype: "f32" }));
  const writer = await SafetensorsWriter.create(file, layout);
  try {
    for await (const tensor of tensors) await writer.write({ ...tensor, name: prefix + tensor.name });
    await writer.close();
  } finally {
    await writer.abandon();
  }
}
