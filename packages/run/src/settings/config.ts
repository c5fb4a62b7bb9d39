import { isObject, TemporaError } from "@tempora/errors";
import type { JudgeTemplate } from "@tempora/preferences";
import { strategies, trainsFuture } from "@tempora/preferences";
import type { z } from "zod";
import { checkJudge } from "./judge-checks.ts";
import type { ConfiguredFunction } from "./judge-settings.ts";
import { knownSettings } from "./known-settings.ts";
import { type Settings, settingsSchema } from "./settings.ts";

type Partially<T> = T extends readonly unknown[] ? T : T extends object ? { [K in keyof T]?: Partially<T[K]> } : T;

type JudgeConfig = Partially<Omit<Settings["judge"], "functions" | "template" | "secondTemplate">> & {
  functions?: readonly ConfiguredFunction[];
  template?: JudgeTemplate | string | null;
  secondTemplate?: JudgeTemplate | string | null;
};

/** What tempora.config.ts gives: any part of the settings; the rest are the defaults. */
export type TemporaConfig = Partially<Omit<Settings, "judge">> & {
  judge?: JudgeConfig;
  /** Name of the run's folder. Default: made from the source and the strategy. */
  run?: string;
  /** Folder that holds the runs and the store that they share. Default "runs". */
  runs?: string;
};

/** Types a configuration file: `export default defineConfig({ iterations: 3 })`. */
export function defineConfig(config: TemporaConfig): TemporaConfig {
  return config;
}

export interface ParsedConfig {
  run: string;
  runs: string;
  settings: Settings;
}

/** Later configurations override earlier ones, field by field; lists are replaced whole. */
export function mergeConfigs(...configs: readonly TemporaConfig[]): TemporaConfig {
  return configs.reduce<Record<string, unknown>>((merged, config) => merge(merged, config), {}) as TemporaConfig;
}

/**
 * Fills in the defaults and checks every field. `defaults` are the settings that hold where the configuration is silent.
 * Throws a TemporaError that names the field, what was given and what is expected.
 */
export function parseConfig(config: unknown, defaults: Settings, file?: string): ParsedConfig {
  const where = file === undefined ? {} : { file };
  if (!isObject(config)) {
    throw new TemporaError("The configuration is not an object", {
      where,
      remedy: "Export an object by default: export default defineConfig({ ... }).",
    });
  }
  const { run, runs, ...rest } = config;
  const result = settingsSchema.safeParse(merge(defaults, rest));
  if (!result.success) throw wrongSetting(firstToName(result.error.issues), rest, where);
  const settings = result.data;
  checkTogether(settings, where);
  return {
    settings,
    runs: folderName(runs, "runs", "runs", where),
    run: runName(run, settings, where),
  };
}

/** A name that is unknown explains one that is missing beside it. */
function firstToName(issues: readonly z.core.$ZodIssue[]): z.core.$ZodIssue {
  return issues.find(({ code }) => code === "unrecognized_keys") ?? (issues[0] as z.core.$ZodIssue);
}

function wrongSetting(issue: z.core.$ZodIssue, given: unknown, where: { file?: string }): TemporaError {
  const unknown = issue.code === "unrecognized_keys" ? issue.keys.slice(0, 1) : [];
  const field = [...issue.path, ...unknown].join(".");
  const group = issue.code === "invalid_type" && issue.expected === "object";
  const known = unknown.length > 0 || group ? knownSettings(issue.path) : [];
  const place = issue.path.length > 0 ? `In ${issue.path.join(".")} there are` : "There are";
  return new TemporaError(unknown.length > 0 ? `There is no setting ${field}` : whatIsWrong(issue, field, given), {
    where: { ...where, field },
    remedy:
      known.length > 0
        ? `${place} ${known.join(", ")}.`
        : "Correct it; the documentation lists every setting with its values.",
  });
}

function whatIsWrong({ message, path }: z.core.$ZodIssue, field: string, given: unknown): string {
  const value = valueAt(given, path);
  const reason = lower(message);
  if (value !== undefined) return `The setting ${field} is ${JSON.stringify(value) ?? `a ${typeof value}`}: ${reason}`;
  return `The setting ${field} is missing: ${reason.replace(/^invalid input: (.*), received undefined$/, "$1")}`;
}

type Fail = (what: string, field: string, remedy: string) => never;

function checkTogether(settings: Settings, where: { file?: string }): void {
  const fail: Fail = (what, field, remedy) => {
    throw new TemporaError(what, { where: { ...where, field }, remedy });
  };
  if (settings.model !== null && settings.prompts === null) {
    fail("A model is given without prompts", "prompts", "Name a file of prompts (--prompts FILE).");
  }
  if (settings.model === null && settings.prompts !== null) {
    fail("Prompts are given without a model", "model", "Name the checkpoint to start from (--model).");
  }
  if (settings.model === null && settings.heldOutPrompts !== null) {
    fail("Held-out prompts are given without a model", "model", "Name the checkpoint to start from (--model).");
  }
  checkAdapter(settings, fail);
  checkJudge(settings.judge, fail);
  if (settings.model !== null && settings.replay.weight > 0 && settings.replay.data === null) {
    fail("Replay needs graded examples", "replay.data", "Name a file of {prompt, completion} rows, or set weight 0.");
  }
  if (settings.baselines.includes(settings.strategy)) {
    fail(`The strategy ${settings.strategy} is its own baseline`, "baselines", "Remove it from the baselines.");
  }
  if (new Set(settings.baselines).size < settings.baselines.length) {
    fail("A baseline is named twice", "baselines", "Name each baseline once.");
  }
  const names = [settings.strategy, ...settings.baselines];
  if (settings.nextStartsFrom === "future" && !names.some((name) => trainsFuture(strategies[name]))) {
    fail(
      `No model of ${names.join(" and ")} is a future one`,
      "nextStartsFrom",
      'Set it to "current", or take temporal.',
    );
  }
  const smooth = settings.loss.labelSmoothing;
  for (const { type } of settings.loss.terms) {
    if (type === "exo_pair" && smooth === 0) {
      fail("exo_pair needs label smoothing", "loss.labelSmoothing", "Give a value above 0, as 0.001.");
    }
  }
}

function checkAdapter({ model, adapter, lora, engine }: Settings, fail: Fail): void {
  if (adapter !== null && model === null) {
    fail("An adapter is given without a model", "adapter", "Name the model that it was trained over (--model).");
  }
  if (adapter !== null && lora !== null) {
    fail(
      "An adapter is given, and a new one is asked for",
      "lora",
      "Leave out one: --adapter goes on with an adapter, --lora-rank begins a new one.",
    );
  }
  if (engine.quantize !== null && adapter === null && lora === null) {
    fail(
      "Quantized weights cannot be trained",
      "engine.quantize",
      "Train an adapter over them, as with --lora-rank 16, or leave it out.",
    );
  }
  if (engine.quantize === "gguf") {
    const remedy = 'Let the base be quantized as it is read, by "nf4"; sft and dpo keep the file\'s blocks.';
    fail("A run keeps a decoded copy of the GGUF file that it starts from", "engine.quantize", remedy);
  }
  if (engine.quantize !== null && model === null) {
    fail("The embedded world's M0 is trained whole", "engine.quantize", "Leave it out.");
  }
}

function runName(run: unknown, settings: Settings, where: { file?: string }): string {
  if (run === undefined) return `${settings.model === null ? "world" : "run"}-${settings.strategy}`;
  if (typeof run === "string" && /^[\p{L}\p{N}][\p{L}\p{N}._-]*$/u.test(run)) return run;
  throw new TemporaError(`The run's name is ${JSON.stringify(run)}`, {
    where: { ...where, field: "run" },
    remedy: "Use letters, digits, '.', '_' and '-' (the name is a folder's).",
  });
}

function folderName(value: unknown, fallback: string, field: string, where: { file?: string }): string {
  if (value === undefined) return fallback;
  if (typeof value === "string" && value !== "") return value;
  throw new TemporaError(`The setting ${field} is ${JSON.stringify(value)}`, {
    where: { ...where, field },
    remedy: "Give the path of a folder.",
  });
}

function merge(base: Record<string, unknown>, over: Record<string, unknown>): Record<string, unknown> {
  const merged: Record<string, unknown> = { ...base };
  for (const [key, value] of Object.entries(over)) {
    if (value === undefined) continue;
    const before = Object.hasOwn(merged, key) ? merged[key] : undefined;
    // Defined, not assigned: what is called __proto__ is a setting that there is not, and is to be refused as one.
    Object.defineProperty(merged, key, {
      ...{ configurable: true, enumerable: true, writable: true },
      value: isObject(before) && isObject(value) ? merge(before, value) : value,
    });
  }
  return merged;
}

function valueAt(value: unknown, path: readonly PropertyKey[]): unknown {
  return path.reduce<unknown>(
    (inner, key) => (typeof inner === "object" && inner !== null ? Reflect.get(inner, key) : undefined),
    value,
  );
}

function lower(text: string): string {
  return text.charAt(0).toLowerCase() + text.slice(1);
}
