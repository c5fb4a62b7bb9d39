import type { DType, ModelConfig } from "@tempora/engine";
import { openCheckpoint } from "@tempora/models";
import { strategies } from "@tempora/preferences";
import { Tokenizer } from "@tempora/text";
import { mostAdapters } from "../models/model-host.ts";
import type { Settings } from "../settings/settings.ts";
import { manyExampleIds } from "../sources/conversation.ts";
import type { Example, TaskSource } from "../sources/source.ts";
import { tokenizerFrom } from "../stages/start.ts";
import { computesOnCpu, generationMemory, type MemoryEstimate, machineMemory, trainingMemory } from "./memory.ts";
import { memoryPlan, type PlannedModel } from "./memory-plan.ts";
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
