import type { AdapterConfig } from "@tempora/engine/adapter";
import { isObject, TemporaError } from "@tempora/errors";
import { ConfigReader } from "../config-reader.ts";

/** Fields of PEFT's LoraConfig that say something about an adapter without changing what it computes. */
const silent = new Set([
  "auto_mapping",
  "base_model_name_or_path",
  "inference_mode",
  "megatron_core",
  "peft_type",
  "peft_version",
  "qalora_group_size",
  "revision",
  "runtime_config",
  "task_type",
]);

/** Those that adapterConfigOf reads. */
const read = new Set([
  "alpha_pattern",
  "fan_in_fan_out",
  "init_lora_weights",
  "lora_alpha",
  "lora_dropout",
  "r",
  "rank_pattern",
  "target_modules",
  "use_rslora",
]);

/** Ways to begin that change the base's weights: the adapter is not one over the base as it is. */
const changedBase = /^(pissa|olora|corda|loftq)/;

function isNeutral(value: unknown): boolean {
  if (value === null || value === undefined || value === false || value === "none") return true;
  if (Array.isArray(value)) return value.length === 0;
  return isObject(value) && Object.keys(value).length === 0;
}

function refuse(file: string, field: string, what: string, remedy: string): never {
  throw new TemporaError(what, { where: { file, field }, remedy });
}

const remedy = "Train a plain LoRA adapter, or merge this one into its base by PEFT (merge_and_unload).";

function numbers(reader: ConfigReader, field: string, file: string): Record<string, number> {
  const value = reader.raw[field] ?? {};
  const good = isObject(value) && Object.values(value).every((number) => typeof number === "number");
  if (!good) refuse(file, field, `${field} is no object of numbers`, "Take the file as PEFT wrote it.");
  return value as Record<string, number>;
}

/** A list of module names, in one order whichever way PEFT's set was written; a string is an expression or "all-linear". */
function targetsOf(reader: ConfigReader, file: string): string | string[] {
  const value = reader.raw.target_modules;
  if (typeof value === "string") return value;
  const names = reader.optionalStrings("target_modules");
  if (names === null) refuse(file, "target_modules", "target_modules is missing", "Take the file as PEFT wrote it.");
  return [...names].sort();
}

/**
 * What an adapter_config.json says to the engine.
 * @throws TemporaError for what is no LoRA, or a LoRA that computes otherwise (DoRA, biases, saved modules …), by field.
 */
export function adapterConfigOf(raw: Record<string, unknown>, file: string): AdapterConfig {
  const reader = new ConfigReader(raw, file);
  const type = reader.string("peft_type", "");
  if (type !== "LORA")
    refuse(file, "peft_type", `The adapter is ${type === "" ? "of no type" : type}, not LORA`, remedy);
  for (const [field, value] of Object.entries(raw)) {
    if (silent.has(field) || read.has(field) || isNeutral(value)) continue;
    refuse(file, field, `The engine does not compute ${field} ${JSON.stringify(value)}`, remedy);
  }
  if (reader.boolean("fan_in_fan_out", false)) {
    refuse(file, "fan_in_fan_out", "The adapter's matrices are transposed", remedy);
  }
  const beginning = raw.init_lora_weights;
  if (typeof beginning === "string" && changedBase.test(beginning)) {
    refuse(file, "init_lora_weights", `An adapter that began as ${beginning} changed its base`, remedy);
  }
  return {
    rank: reader.integer("r"),
    alpha: reader.number("lora_alpha", { fallback: 8 }),
    rsLora: reader.boolean("use_rslora", false),
    dropout: reader.number("lora_dropout", { fallback: 0, least: 0 }),
    targets: targetsOf(reader, file),
    ranks: numbers(reader, "rank_pattern", file),
    alphas: numbers(reader, "alpha_pattern", file),
  };
}

/** The adapter_config.json of an adapter that was made here. vLLM and PEFT read it. */
export function newAdapterConfigJson(config: AdapterConfig, base: string): Record<string, unknown> {
  return {
    alpha_pattern: config.alphas ?? {},
    base_model_name_or_path: base,
    bias: "none",
    fan_in_fan_out: false,
    inference_mode: true,
    init_lora_weights: true,
    lora_alpha: config.alpha,
    lora_dropout: config.dropout ?? 0,
    modules_to_save: null,
    peft_type: "LORA",
    r: config.rank,
    rank_pattern: config.ranks ?? {},
    target_modules: config.targets ?? "all-linear",
    task_type: "CAUSAL_LM",
    use_dora: false,
    use_rslora: config.rsLora ?? false,
  };
}
