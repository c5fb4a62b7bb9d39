import type { PreferenceLoss } from "@tempora/engine";
import { TemporaError } from "@tempora/errors";
import { type JudgeKind, mergeConfigs, paperSettings, type TemporaConfig } from "@tempora/run";
import { type Command, Option } from "commander";
import { addLoraOptions, type LoraFlags } from "./adapter.ts";
import {
  judgeOption,
  momentsOf,
  type OptimizerFlags,
  optimizerOption,
  parseLossTerms,
  realNumber,
  wholeNumber,
} from "./options.ts";
import { dateOption, kwargsOption, parseDayText, systemOption } from "./text-flags.ts";

/** Flags of `train` that stand for one setting each, under the names that `generate`, `dpo` and `judge` use for them. */
export interface SettingFlags extends Omit<LoraFlags, "seed">, OptimizerFlags {
  system?: string;
  chatTemplateKwargs?: Record<string, unknown>;
  date?: string;
  skipTooLong?: boolean;
  loss?: PreferenceLoss["terms"];
  beta?: number;
  lr?: number;
  epochs?: number;
  gradientCheckpointing?: boolean;
  maxNewTokens?: number;
  temperature?: number;
  judge?: JudgeKind;
  judgements?: number;
  stopWhenWorse?: number;
  set: string[];
}

/** What holds where a model is named and the configuration is silent; the embedded world has settings of its own. */
function withModel(value: string | number): string {
  return `(default with --model: ${value})`;
}

export function addSettingFlags(command: Command): Command {
  const { loss, training, sampling, judge } = paperSettings;
  return addLoraOptions(command)
    .addOption(optimizerOption())
    .addOption(
      new Option("--loss <terms>", "loss_type, or a weighted sum as sigmoid,sft:0.3 (default: sigmoid)").argParser(
        parseLossTerms,
      ),
    )
    .option(
      "--beta <number>",
      `strength of the pull to the reference ${withModel(loss.beta)}`,
      realNumber(0, Infinity, { above: true }),
    )
    .option("--lr <rate>", `peak learning rate of AdamW in the loop ${withModel(training.learningRate)}`, realNumber(0))
    .option("--epochs <count>", `passes over the pairs of a phase ${withModel(training.epochs)}`, wholeNumber(1))
    .option("--gradient-checkpointing", "recompute activations in the backward pass: less memory, more time")
    .option("--max-new-tokens <count>", `longest answer, in tokens ${withModel(sampling.maxNewTokens)}`, wholeNumber(1))
    .addOption(systemOption())
    .addOption(kwargsOption())
    .addOption(dateOption("the day of the first start", parseDayText))
    .option(
      "--skip-too-long",
      "leave out and count prompts whose answer or judgement has no room in the context, instead of ending",
    )
    .option(
      "--temperature <number>",
      `of the answers; 0 takes the most likely token ${withModel(sampling.temperature)}`,
      realNumber(0),
    )
    .addOption(judgeOption())
    .option(
      "--judgements <count>",
      `judgements averaged for each answer ${withModel(judge.judgements)}`,
      wholeNumber(1),
    )
    .option(
      "--stop-when-worse <count>",
      "end after so many models in a row below the best held-out score",
      wholeNumber(1),
    )
    .option(
      "--set <setting=value>",
      "any setting, as judge.retries=1 or training.betas=[0.9,0.95]; may be repeated",
      (text: string, before: string[]) => [...before, text],
      [],
    );
}

/** The settings that the flags give; --set overrides the flags beside it. */
export function settingsOf(flags: SettingFlags): TemporaConfig {
  const { system, chatTemplateKwargs, date, skipTooLong } = flags;
  const { loss, beta, lr, epochs, gradientCheckpointing, maxNewTokens, temperature } = flags;
  const { judge: kind, judgements, stopWhenWorse } = flags;
  const sampling = { maxNewTokens, temperature };
  const config: TemporaConfig = {
    ...given({ system, chatTemplateKwargs, date, skipTooLong }),
    loss: { ...(loss === undefined ? {} : { terms: [...loss] }), ...given({ beta }) },
    training: given({ learningRate: lr, epochs, gradientCheckpointing }),
    sampling: given(sampling),
    evaluation: { sampling: given(sampling) },
    judge: given({ kind, judgements }),
    ...given({ stopWhenWorse }),
    ...adapterSettings(flags),
    engine: given({ quantize: flags.quantize, moments: flags.optimizer && momentsOf(flags) }),
  };
  return mergeConfigs(config, ...flags.set.map(assignment));
}

function adapterSettings(flags: SettingFlags): TemporaConfig {
  const { adapter, loraRank: rank, loraAlpha: alpha, loraTargets: targets, loraDropout: dropout, rslora } = flags;
  const lora = given({ rank, alpha, targets, dropout, rsLora: rslora });
  return { ...given({ adapter }), ...(Object.keys(lora).length === 0 ? {} : { lora }) };
}

/** Without what was left out: it must not override anything. */
export function given<T extends object>(values: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined)) as {
    [K in keyof T]?: Exclude<T[K], undefined>;
  };
}

/** "judge.retries=1" as a configuration. A value that is no JSON is text. */
function assignment(text: string): TemporaConfig {
  const equals = text.indexOf("=");
  const path = text.slice(0, equals).trim().split(".");
  if (equals < 0 || path.includes("")) {
    throw new TemporaError(`"${text}" sets nothing`, {
      where: { field: "--set" },
      remedy: "Name a setting and its value, as --set judge.retries=1.",
    });
  }
  const value: unknown = parsedValue(text.slice(equals + 1).trim());
  return path.reduceRight<unknown>((inner, name) => ({ [name]: inner }), value) as TemporaConfig;
}

function parsedValue(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}
