import type { AdapterConfig, Engine, Quantization } from "@tempora/engine";
import { TemporaError } from "@tempora/errors";
import { type AdapterFolder, isAdapterFolder, newAdapterConfigJson, openAdapter, saveAdapter } from "@tempora/models";
import { type Command, InvalidArgumentError, Option } from "commander";
import { realNumber, wholeNumber } from "./options.ts";
import { claimFolder } from "./output.ts";

/** What the engine calls the one adapter that a command uses. */
const only = "adapter";

/** A model that a command was given. */
export interface NamedModel {
  /** As the user named it. */
  name: string;
  /** The LoRA adapter's folder, where the name is an adapter's: everything goes through it. */
  adapter: string | null;
}

export interface AdapterFlags {
  adapter?: string;
}

export interface LoraFlags extends AdapterFlags {
  loraRank?: number;
  loraAlpha?: number;
  loraTargets?: "all-linear" | string[];
  loraDropout?: number;
  rslora?: boolean;
  seed: number;
  quantize?: Quantization;
}

export function addAdapterOption(command: Command): Command {
  return command.option("--adapter <folder>", "a LoRA adapter over the model, as PEFT saves it");
}

/** --adapter and what makes a new one. */
export function addLoraOptions(command: Command): Command {
  return command
    .option("--adapter <folder>", "train this LoRA adapter (as PEFT saves it) instead of the model")
    .option("--lora-rank <count>", "train a new LoRA adapter of this rank instead of the model", wholeNumber(1))
    .option(
      "--lora-alpha <number>",
      "its scale is alpha / rank (default: twice the rank)",
      realNumber(0, Infinity, { above: true }),
    )
    .addOption(
      new Option(
        "--lora-targets <names>",
        "matrices it adapts: all-linear (the default), or names as q_proj,v_proj",
      ).argParser(parseTargets),
    )
    .option("--lora-dropout <share>", "dropout of its input (default: 0)", realNumber(0, 1))
    .option("--rslora", "scale by alpha / √rank");
}

function parseTargets(text: string): "all-linear" | string[] {
  if (text === "all-linear") return text;
  const names = text.split(",").map((name) => name.trim());
  if (names.every((name) => name !== "")) return names;
  throw new InvalidArgumentError("Give names of modules, as q_proj,v_proj, or all-linear.");
}

/** The adapter that --adapter or --model names, opened before any weights are read. */
export async function namedAdapter(model: NamedModel, flags: AdapterFlags): Promise<AdapterFolder | null> {
  const folder = adapterOf(model, flags);
  return folder === null ? null : openAdapter(folder);
}

/** The folder of the adapter that --adapter or --model names. */
export function adapterOf({ adapter }: NamedModel, flags: AdapterFlags): string | null {
  if (adapter === null) return flags.adapter ?? null;
  if (flags.adapter === undefined) return adapter;
  throw new TemporaError("The model is an adapter already", {
    where: { field: "--adapter" },
    remedy: "Name the base by --model, or leave --adapter out.",
  });
}

/** The flags of the model alone. */
export function withoutAdapter<T extends AdapterFlags>(flags: T): Omit<T, "adapter"> {
  const { adapter: _, ...others } = flags;
  return others;
}

/** Lets everything go through the adapter. */
export async function useAdapter(engine: Engine, adapter: AdapterFolder, seed?: number): Promise<void> {
  await engine.adapters.load(only, adapter, { seed });
  await engine.adapters.activate(only);
}

/** Claims the folder of what a training makes: an adapter where one is trained, else a whole model. */
export function claimTrained(flags: LoraFlags & { model: string; reference?: string; out: string }): Promise<string> {
  const { model, reference, adapter, loraRank, out } = flags;
  const inputs = [model, reference, adapter].filter((input) => input !== undefined);
  const trainsAdapter = adapter !== undefined || loraRank !== undefined || isAdapterFolder(model);
  return claimFolder("--out", out, { inputs, what: trainsAdapter ? "adapter" : "checkpoint" });
}

/** An adapter to train, given or new, and how to save it. */
export interface TrainedAdapter {
  readonly config: AdapterConfig;
  /** Of the given one; null: it is new. */
  readonly folder: string | null;
  begin(engine: Engine): Promise<void>;
  save(engine: Engine, folder: string): Promise<void>;
}

/** What the flags ask to train instead of the model: null for the model. */
export async function trainedAdapter(flags: LoraFlags, model: NamedModel): Promise<TrainedAdapter | null> {
  const { loraRank: rank } = flags;
  const given = await namedAdapter(model, flags);
  if (given !== null) {
    if (rank !== undefined) {
      const goesOn = model.adapter === null ? "--adapter goes on with an adapter" : "The model is an adapter already";
      throw new TemporaError(`${goesOn}, --lora-rank begins a new one`, {
        where: { field: "--lora-rank" },
        remedy: model.adapter === null ? "Give one of them." : "Leave it out, or name the base by --model.",
      });
    }
    const { config, raw } = given;
    return {
      config,
      folder: given.path,
      begin: (engine) => useAdapter(engine, given, flags.seed),
      save: (engine, folder) => save(engine, folder, config, raw),
    };
  }
  if (rank === undefined) {
    if (flags.quantize === undefined) return null;
    throw new TemporaError("Quantized weights cannot be trained", {
      where: { field: "--quantize" },
      remedy: "Train an adapter over them, as with --lora-rank 16, or leave --quantize out.",
    });
  }
  const config: AdapterConfig = {
    rank,
    alpha: flags.loraAlpha ?? 2 * rank,
    rsLora: flags.rslora ?? false,
    dropout: flags.loraDropout ?? 0,
    targets: flags.loraTargets ?? "all-linear",
  };
  return {
    config,
    folder: null,
    begin: async (engine) => {
      await engine.adapters.add(only, config, { seed: flags.seed });
      await engine.adapters.activate(only);
    },
    save: (engine, folder) => save(engine, folder, config, newAdapterConfigJson(config, model.name)),
  };
}

function save(engine: Engine, folder: string, config: AdapterConfig, raw: Record<string, unknown>): Promise<void> {
  const { adapters } = engine;
  return saveAdapter(folder, { config, raw, parameters: adapters.parameters(only), tensors: adapters.tensors(only) });
}

/** Adds the adapter to the model's weights. */
export async function mergeAdapter(engine: Engine, adapter: AdapterFolder): Promise<void> {
  await engine.adapters.load(only, adapter);
  await engine.adapters.merge(only);
}
