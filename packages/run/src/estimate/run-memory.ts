import type { DType, ModelConfig } from "@tempora/engine";
import { openCheckpoint } from "@tempora/models";
import { strategies } from "@tempora/preferences";
import { Tokenizer } from "@tempora/text";
import { mostAdapters } from "../models/model-host.ts";
import type { Observer } from "../results/observer.ts";
import type { Settings } from "../settings/settings.ts";
import { manyExampleIds, promptIds } from "../sources/conversation.ts";
import type { Example, TaskSource } from "../sources/source.ts";
import { tokenizerFrom } from "../stages/start.ts";
import { gibibytes } from "./gibibytes.ts";
import {
  computesOnCpu,
  generationMemory,
  type MemoryEstimate,
  machineMemory,
  requireMemory,
  trainingMemory,
} from "./memory.ts";
import { memoryPlan, type PlannedModel, plannedAdapter } from "./memory-plan.ts";
import type { StepShape } from "./step-workspace.ts";
import type { TaskLengths } from "./work.ts";

/** What a run takes: of its trainings the one that takes most. */
export interface RunMemory {
  training: MemoryEstimate;
  generation: MemoryEstimate;
  available: number;
}

/** What decides the sizes of a run's forests. */
export interface RowLengths {
  /** Of one iteration. */
  tasks: readonly Pick<TaskLengths, "promptIds" | "answer">[];
  /** Prompts that are answered together at most. */
  prompts: number;
  /** What M0 is trained on first: rows and tokens, their standard deviation from row to row, and those of the longest row. */
  start: { rows: number; tokens: number; deviation: number; longest: number };
}

/** Rows and prompts that are tokenized as a run begins, to know the length of all. */
const mostTasks = 256;
/** No batch of a few thousand is further from the mean. */
const mostDeviations = 4;

export interface OpenedModel {
  config: ModelConfig;
  tokenizer: Tokenizer;
  dtype: DType;
}

/** `unpacked`: whether the run keeps a decoded copy of it. */
export async function modelOf(
  { start }: TaskSource,
  { engine }: Settings,
): Promise<OpenedModel & { unpacked: boolean }> {
  if (start.kind === "new") {
    return {
      config: start.config,
      tokenizer: await tokenizerFrom(start.files),
      dtype: engine.dtype ?? "f32",
      unpacked: false,
    };
  }
  const { config, path, companion, dtype, format } = await openCheckpoint(start.folder);
  const tokenizer = await Tokenizer.from(path, companion);
  return { config, tokenizer, dtype: engine.dtype ?? dtype, unpacked: format !== "huggingface" };
}

export interface Reading {
  tokenizer: Tokenizer;
  maxLength: number;
  now: Date;
  signal: AbortSignal | undefined;
}

/** Tokens of examples. */
export async function lengthsOf(
  examples: readonly Example[],
  { signal, tokenizer, ...options }: Reading,
): Promise<{ mean: number; deviation: number; longest: number }> {
  if (examples.length === 0) return { mean: 0, deviation: 0, longest: 0 };
  const rows = await manyExampleIds(examples, tokenizer, options, signal);
  const counts = rows.map((row) => row.promptIds.length + row.completionIds.length);
  const meanOf = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;
  const mean = meanOf(counts);
  return {
    mean,
    deviation: Math.sqrt(meanOf(counts.map((count) => (count - mean) ** 2))),
    longest: Math.max(...counts),
  };
}

/** Tokens of M0's rows, by some of them. */
export async function startLengths(
  { data }: TaskSource["start"],
  count: number,
  reading: Reading,
): Promise<RowLengths["start"]> {
  const { mean, deviation, longest } = await lengthsOf(data?.some(count) ?? [], reading);
  const rows = data?.count ?? 0;
  return { rows, tokens: Math.ceil(rows * mean), deviation, longest };
}

/** The largest forest of a training whose longest item has so many tokens, `scored` of them scored. */
function largestStep(
  { batchPairs, maxTokens, gradientCheckpointing: checkpointing }: Settings["training"],
  item: { tokens: number; scored: number },
): StepShape {
  const tokens = Math.min(maxTokens, batchPairs * item.tokens);
  return { tokens, checkpointing, scoredTokens: Math.min(tokens, batchPairs * item.scored), treeTokens: item.scored };
}

/** Rows at once and tokens of the cache: answers take what they need; how long judgements in words get, nobody looks at here. */
function largestGeneration(
  { generation, candidates, judge }: Settings,
  { prompts, prompt, answer }: { prompts: number; prompt: number; answer: number },
) {
  const spoken = [judge.kind, judge.quality?.kind].includes("sampled");
  const rows = spoken ? generation.maxRows : Math.min(generation.maxRows, prompts * candidates);
  const needed = spoken ? Infinity : prompts * prompt + rows * answer;
  return { rows, cacheTokens: Math.min(generation.maxCacheTokens, needed) };
}

/** Tokens of a row in the largest of many batches: of so many rows together the mean strays less than that of one. */
function largestMean({ rows, tokens, deviation, longest }: RowLengths["start"], batch: number) {
  const most = Math.min(longest, Math.ceil(tokens / rows + (mostDeviations * deviation) / Math.sqrt(batch)));
  return { tokens: most, scored: most };
}

/** What a run takes at most, by what is known of its rows before. */
export function memoryOf(settings: Settings, model: PlannedModel, input: RowLengths): RunMemory {
  const { training, start, engine, lora } = settings;
  // The models of a run that are adapters over one base are held beside each other.
  const models = settings.iterations * strategies[settings.strategy].phases.length;
  const plan = { ...memoryPlan(settings, model), adaptersBeside: Math.min(models, mostAdapters) };
  const { tasks } = input;
  const answer = Math.max(1, ...tasks.map((task) => task.answer));
  const prompt = Math.max(1, ...tasks.map((task) => task.promptIds.length));
  const pair = { tokens: prompt + 2 * answer, scored: 2 * answer };
  const onCpu = computesOnCpu(engine.device);
  const trainings = [trainingMemory({ ...plan, packed: onCpu }, largestStep(training, pair))];
  if (input.start.rows > 0) {
    const { rows, tokens } = input.start;
    const wholeStart = settings.model === null || lora?.start === "full";
    const own = { ...plan, adaptersBeside: 0, ...(wholeStart ? { adapter: null } : {}), examples: { rows, tokens } };
    trainings.push(
      trainingMemory(own, largestStep(start.training, largestMean(input.start, start.training.batchPairs))),
    );
  }
  return {
    training: trainings.reduce((most, one) => (one.total > most.total ? one : most)),
    generation: generationMemory(plan, {
      ...largestGeneration(settings, { prompts: input.prompts, prompt, answer }),
      device: onCpu ? "cpu" : "cuda",
    }),
    available: machineMemory(),
  };
}

/**
 * Refuses a run whose weights, gradients and moments alone the machine cannot hold, whose longest answers nobody knows
 * before; of one that may fit, tells what it takes at most.
 * @throws TemporaError
 */
export async function requireRunMemory(settings: Settings, source: TaskSource, observer: Observer): Promise<void> {
  if (!computesOnCpu(settings.engine.device)) return;
  const opened = await modelOf(source, settings);
  const adapter = await plannedAdapter(settings);
  requireHeld(settings, { ...opened, adapter });
  const lengths = await someLengths(settings, source, opened);
  const { training, generation, available } = memoryOf(settings, { ...opened, adapter }, lengths);
  const machine = `the machine has ${gibibytes(available)}`;
  observer.note(
    `Memory: training takes about ${shown(training)}, generation ${shown(generation)} at most; ${machine}.`,
  );
}

function requireHeld(settings: Settings, { config, dtype, adapter }: PlannedModel): void {
  const plan = memoryPlan(settings, { config, dtype, adapter });
  const step = { tokens: 1, checkpointing: true };
  const lighter = [
    { change: "--dtype bf16", plan: { ...plan, dtype: "bf16" as const } },
    { change: "--lora-rank 16", plan: { ...plan, adapter: adapter ?? { rank: 16, alpha: 32 } } },
    {
      change: "--dtype bf16 --lora-rank 16 --quantize nf4",
      plan: { ...plan, dtype: "bf16" as const, quantize: "nf4" as const, adapter: adapter ?? { rank: 16, alpha: 32 } },
    },
  ].map(({ change, plan: other }) => ({ change, memory: trainingMemory(other, step) }));
  const what = adapter === null ? "The training of the whole model" : "The training of the adapter";
  requireMemory(what, trainingMemory(plan, step), machineMemory(), lighter);
}

/** Of some prompts of the first iteration, with answers of the full length, and of some of M0's rows. */
async function someLengths(settings: Settings, source: TaskSource, opened: OpenedModel): Promise<RowLengths> {
  const { tokenizer, config } = opened;
  const now = settings.date === null ? new Date() : new Date(settings.date);
  const tasks = source.training(0, settings.promptsPerIteration);
  const every = Math.ceil(tasks.length / mostTasks);
  // Whether a prompt leaves room for its answer is looked at later.
  const reading = { maxLength: Number.MAX_SAFE_INTEGER, now };
  const lengths = tasks
    .filter((_, index) => index % every === 0)
    .map((task) => ({
      promptIds: promptIds(task, tokenizer, reading).slice(0, config.maxPositions),
      answer: settings.sampling.maxNewTokens,
    }));
  const start = await startLengths(source.start, mostTasks, { ...reading, tokenizer, signal: undefined });
  return { tasks: lengths, prompts: Math.max(tasks.length, source.heldOut().length), start };
}

/** "0.49 GiB (workspace 0.04, program 0.45)" */
function shown({ total, ...parts }: MemoryEstimate): string {
  const list = Object.entries(parts)
    .map(([use, bytes]) => [use, (bytes / 2 ** 30).toFixed(2)] as const)
    .filter(([, amount]) => amount !== "0.00");
  return `${gibibytes(total)} (${list.map((part) => part.join(" ")).join(", ")})`;
}
