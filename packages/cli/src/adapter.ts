import type { AdapterConfig, Engine } from "@tempora/engine";
import { TemporaError } from "@tempora/errors";
import { type AdapterFolder, newAdapterConfigJson, openAdapter, saveAdapter } from "@tempora/models";
import { type Command, InvalidArgumentError, Option } from "commander";
import { realNumber, wholeNumber } from "./options.ts";

/** What the engine calls the one adapter that a command uses. */
const only = "adapter";

export interface AdapterFlags {
  adapter?: string;
}

export interface LoraFlags extends AdapterFlags {
  loraRank?: number;
  loraAlpha?: number;
  loraTargets: AdapterConfig["targets"];
  loraDropout: number;
  rslora: boolean;
  seed: number;
  quantize?: "nf4";
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
      new Option("--lora-targets <names>", "matrices it adapts: all-linear, or names as q_proj,v_proj")
        .argParser(parseTargets)
        .default("all-linear"),
    )
    .option("--lora-dropout <share>", "dropout of its input", realNumber(0, 1), 0)
    .option("--rslora", "scale by alpha / √rank", false);
}

function parseTargets(text: string): AdapterConfig["targets"] {
  if (text === "all-linear") return text;
  const names = text.split(",").map((name) => name.trim());
  if (names.every((name) => name !== "")) return names;
  throw new InvalidArgumentError("Give names of modules, as q_proj,v_proj, or all-linear.");
}

/** Opens the adapter that --adapter names, before any weights are read. */
export async function namedAdapter(flags: AdapterFlags): Promise<AdapterFolder | null> {
  return flags.adapter === undefined ? null : openAdapter(flags.adapter);
}

/** The flags of the base alone. */
export function withoutAdapter<T extends AdapterFlags>(flags: T): Omit<T, "adapter"> {
  const { adapter: _, ...others } = flags;
  return others;
}

/** Lets everything go through the adapter. */
export async function useAdapter(engine: Engine, adapter: AdapterFolder, seed?: number): Promise<void> {
  await engine.adapters.load(only, adapter, { seed });
  await engine.adapters.activate(only);
}

/** An adapter to train, given or new, and how to save it. */
export interface TrainedAdapter {
  readonly config: AdapterConfig;
  begin(engine: Engine): Promise<void>;
  save(engine: Engine, folder: string): Promise<void>;
}

/** What the flags ask to train instead of the model: null for the model. `base` is the model as the user named it. */
export async function trainedAdapter(flags: LoraFlags, base: string): Promise<TrainedAdapter | null> {
  const { loraRank: rank } = flags;
  const given = await namedAdapter(flags);
  if (given !== null) {
    if (rank !== undefined) {
      throw new TemporaError("--adapter goes on with an adapter, --lora-rank begins a new one", {
        where: { field: "--lora-rank" },
        remedy: "Give one of them.",
      });
    }
    const { config, raw } = given;
    return {
      config,
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
    rsLora: flags.rslora,
    dropout: flags.loraDropout,
    targets: flags.loraTargets,
  };
  return {
    config,
    begin: async (engine) => {
      await engine.adapters.add(only, config, { seed: flags.seed });
      await engine.adapters.activate(only);
    },
    save: (engine, folder) => save(engine, folder, config, newAdapterConfigJson(config, base)),
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
