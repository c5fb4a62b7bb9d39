import { type LossType, lossTypes, type MomentsFormat, type PreferenceLoss, type Quantization } from "@tempora/engine";
import { TemporaError } from "@tempora/errors";
import { judgeKinds, paperSettings, type Settings } from "@tempora/run";
import { type Columns, parseColumns } from "@tempora/text";
import { schedulers, type TrainingOptions } from "@tempora/training";
import { Command, InvalidArgumentError, Option } from "commander";
import type { Context } from "./context.ts";

/** A command with what every command has: --json, --debug and an example. */
export function newCommand(name: string, description: string, examples: readonly string[]): Command {
  const shown = examples.map((example) => `  $ tempora ${example}`).join("\n");
  return new Command(name)
    .description(description)
    .option("--json", "print the result as JSON on standard output", false)
    .option("--debug", "print the stack of an error (also TEMPORA_DEBUG=1)", false)
    .addHelpText("after", `\nExample${examples.length > 1 ? "s" : ""}:\n${shown}`);
}

/** Binds a command's work to the options it was given. */
export function whenCalled<T extends object>(
  command: Command,
  context: Context,
  work: (options: T, context: Context, args: readonly string[]) => Promise<void>,
): Command {
  // Commander looks for missing options before unknown ones: --modle would be told as a missing --model.
  const required = command.options.filter((option) => option.mandatory);
  for (const option of required) option.makeOptionMandatory(false);
  return command.action(() => {
    const missing = required.filter((option) => command.getOptionValue(option.attributeName()) === undefined);
    if (missing.length > 0) throw missingOptions(command, missing);
    return work(command.opts<T>(), context, command.args);
  });
}

function missingOptions(command: Command, missing: readonly Option[]): TemporaError {
  const names = missing.map((option) => option.flags).join(", ");
  const what = missing.length === 1 ? `The option ${names} is missing` : `These options are missing: ${names}`;
  return new TemporaError(what, { remedy: `See \`tempora ${command.name()} --help\`.` });
}

/** A whole number in [low, high]. */
export function wholeNumber(low: number, high = Number.MAX_SAFE_INTEGER): (text: string) => number {
  return (text) => {
    const value = /^[+-]?\d+$/.test(text.trim()) ? Number(text) : Number.NaN;
    if (Number.isSafeInteger(value) && value >= low && value <= high) return value;
    const range = high === Number.MAX_SAFE_INTEGER ? `${low} or more` : `${low} to ${high}`;
    throw new InvalidArgumentError(`Give a whole number, ${range}.`);
  };
}

/** A number with low < value (or low <= value) and value <= high. */
export function realNumber(
  low: number,
  high = Number.POSITIVE_INFINITY,
  { above = false }: { above?: boolean } = {},
): (text: string) => number {
  return (text) => {
    const value = text.trim() === "" ? Number.NaN : Number(text);
    if (Number.isFinite(value) && (above ? value > low : value >= low) && value <= high) return value;
    const upper = high === Number.POSITIVE_INFINITY ? "" : ` and at most ${high}`;
    throw new InvalidArgumentError(`Give a number ${above ? "above" : "from"} ${low}${upper}.`);
  };
}

export interface ColumnFlags {
  columns?: Columns;
}

export function addColumnsOption(command: Command): Command {
  return command.option(
    "--columns <pairs>",
    "columns of the file that hold the fields, as prompt=instruction,completion=output",
    parseColumns,
  );
}

export interface EngineFlags {
  device: "auto" | "cpu" | "cuda";
  dtype?: "f32" | "bf16";
  threads: number;
  quantize?: Quantization;
}

export function addEngineOptions(command: Command): Command {
  return command
    .addOption(new Option("--device <device>", "where to compute").choices(["auto", "cpu", "cuda"]).default("auto"))
    .addOption(
      new Option("--dtype <type>", "type of the weights in memory (default: the checkpoint's own)").choices([
        "f32",
        "bf16",
      ]),
    )
    .addOption(new Option("--threads <count>", "CPU threads, 0 for all cores").argParser(wholeNumber(0)).default(0))
    .addOption(
      new Option(
        "--quantize <format>",
        "hold the blocks' matrices in 4 bits (nf4: QLoRA), or as a GGUF file has them (gguf); training then needs an adapter",
      ).choices(["nf4", "gguf"]),
    );
}

/** How AdamW's moments are stored, under the names of Hugging Face's trainers. */
const optimizers = { adamw: "f32", adamw_bf16: "bf16", adamw_8bit: "8bit" } as const;

export interface OptimizerFlags {
  optimizer?: keyof typeof optimizers;
}

export function optimizerOption(): Option {
  return new Option(
    "--optimizer <name>",
    "AdamW with its moments in f32, bf16 or 8 bits (default: adamw, f32)",
  ).choices(Object.keys(optimizers));
}

export function momentsOf({ optimizer = "adamw" }: OptimizerFlags): MomentsFormat {
  return optimizers[optimizer];
}

export interface SamplingFlags {
  temperature: number;
  topP: number;
  topK: number;
  maxNewTokens: number;
  seed: number;
}

export function addSamplingOptions(command: Command, defaults: SamplingFlags): Command {
  return command
    .option("--temperature <number>", "0 takes the most likely token", realNumber(0), defaults.temperature)
    .option(
      "--top-p <share>",
      "smallest set of tokens with this probability",
      realNumber(0, 1, { above: true }),
      defaults.topP,
    )
    .option("--top-k <count>", "only the k most likely tokens, 0 for all", wholeNumber(0), defaults.topK)
    .option("--max-new-tokens <count>", "longest completion", wholeNumber(1), defaults.maxNewTokens)
    .option("--seed <number>", "seed of the random numbers", wholeNumber(0), defaults.seed);
}

/** --judge, as `judge` and `train` have it. */
export function judgeOption(): Option {
  return new Option(
    "--judge <kind>",
    "sampled: judgements in words; expected: read from the model's probabilities; function; endpoint",
  ).choices(judgeKinds);
}

export interface CacheFlags {
  maxRows: number;
  maxCacheTokens: number;
}

export function addCacheOptions(command: Command, defaults: CacheFlags = paperSettings.generation): Command {
  const { maxRows, maxCacheTokens } = defaults;
  return command
    .option("--max-rows <count>", "completions decoded at once at most", wholeNumber(1), maxRows)
    .option(
      "--max-cache-tokens <count>",
      "tokens of the KV cache at most: bounds the memory",
      wholeNumber(1),
      maxCacheTokens,
    );
}

export function maxTokensOption(): Option {
  return new Option("--max-tokens <count>", "tokens of a micro-batch at most: bounds the memory")
    .argParser(wholeNumber(1))
    .default(paperSettings.training.maxTokens);
}

export interface TrainingFlags {
  lr: number;
  scheduler: (typeof schedulers)[number];
  warmupSteps?: number;
  weightDecay: number;
  maxGradNorm: number;
  batchPairs: number;
  maxTokens: number;
  epochs: number;
  shuffle: boolean;
  seed: number;
  adamBeta1: number;
  adamBeta2: number;
  adamEpsilon: number;
  gradientCheckpointing: boolean;
  saveSteps?: number;
  saveStateSeconds: number;
}

/** `defaults`: the settings of the loop for the same kind of training, so that a command does what the loop does. */
export function addTrainingOptions(command: Command, defaults: Settings["training"], rows: "pairs" | "rows"): Command {
  const { learningRate: lr } = defaults;
  return command
    .addOption(
      new Option("--lr <rate>", "peak learning rate of AdamW").argParser(realNumber(0)).default(lr, lr.toExponential()),
    )
    .addOption(
      new Option("--scheduler <name>", "learning rate over the steps").choices(schedulers).default(defaults.scheduler),
    )
    .option(
      "--warmup-steps <count>",
      "steps in which the learning rate rises from 0 (default: a tenth of all)",
      wholeNumber(0),
    )
    .option("--weight-decay <number>", "not applied to norms and biases", realNumber(0), defaults.weightDecay)
    .option(
      "--max-grad-norm <number>",
      "clip the gradient to this norm, 0 to leave it",
      realNumber(0),
      defaults.maxGradNorm,
    )
    .option("--batch-pairs <count>", `${rows} per optimizer step`, wholeNumber(1), defaults.batchPairs)
    .addOption(maxTokensOption())
    .option("--epochs <count>", "passes over the data", wholeNumber(1), defaults.epochs)
    .option("--shuffle", "a new order of the rows in every epoch", true)
    .option("--no-shuffle", "the rows in the order of the file")
    .option("--seed <number>", "seed of the order and of stochastic rounding", wholeNumber(0), 0)
    .option("--adam-beta1 <share>", "decay of the first moment", realNumber(0, 1), defaults.betas[0])
    .option("--adam-beta2 <share>", "decay of the second moment", realNumber(0, 1), defaults.betas[1])
    .option(
      "--adam-epsilon <number>",
      "added to the root of the second moment",
      realNumber(0, 1, { above: true }),
      defaults.epsilon,
    )
    .option("--gradient-checkpointing", "recompute activations in the backward pass: less memory, more time", false)
    .option("--save-steps <count>", "keep the model after every so many steps, in <out>-checkpoints", wholeNumber(1))
    .option(
      "--save-state-seconds <seconds>",
      "save so often what a killed training goes on from, by the same command",
      realNumber(0),
      defaultStateSeconds,
    );
}

const defaultStateSeconds = 300;

export function trainingOptions(flags: TrainingFlags): TrainingOptions {
  return {
    learningRate: flags.lr,
    scheduler: flags.scheduler,
    warmupSteps: flags.warmupSteps ?? null,
    weightDecay: flags.weightDecay,
    maxGradNorm: flags.maxGradNorm,
    batchPairs: flags.batchPairs,
    maxTokens: flags.maxTokens,
    epochs: flags.epochs,
    shuffle: flags.shuffle,
    seed: flags.seed,
    betas: [flags.adamBeta1, flags.adamBeta2],
    epsilon: flags.adamEpsilon,
    gradientCheckpointing: flags.gradientCheckpointing,
  };
}

/** "sigmoid", or a weighted sum as "sigmoid,sft:0.3". */
export function parseLossTerms(text: string): PreferenceLoss["terms"] {
  return text.split(",").map((part) => {
    const [name = "", weight, ...rest] = part.trim().split(":");
    if (!isLossType(name)) {
      throw new InvalidArgumentError(`There is no loss "${name}"; there are ${lossTypes.join(", ")}.`);
    }
    const value = weight === undefined ? 1 : Number(weight);
    if (rest.length > 0 || weight === "" || !Number.isFinite(value)) {
      throw new InvalidArgumentError(`"${part.trim()}" is no loss with a weight; write it as sft:0.3.`);
    }
    return { type: name, weight: value };
  });
}

function isLossType(name: string): name is LossType {
  return (lossTypes as readonly string[]).includes(name);
}
