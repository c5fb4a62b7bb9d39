import { type AdapterConfig, type DType, type ModelConfig, parameterShapes } from "@tempora/engine";
import { openCheckpoint } from "@tempora/models";
import { defaultJudgeTemplate, yesNoTemplate } from "@tempora/preferences";
import { Tokenizer } from "@tempora/text";
import { locateModels } from "../models/locate-models.ts";
import { countParameters } from "../results/ledger.ts";
import type { Observer } from "../results/observer.ts";
import type { Settings } from "../settings/settings.ts";
import { manyExampleIds } from "../sources/conversation.ts";
import { fileSource } from "../sources/files.ts";
import type { Example, TaskSource } from "../sources/source.ts";
import { worldSource } from "../sources/world.ts";
import { tokenizerFrom } from "../stages/start.ts";
import { freeBytes } from "./disk.ts";
import {
  computesOnCpu,
  generationMemory,
  type MemoryEstimate,
  machineMemory,
  requireMemory,
  trainingMemory,
} from "./memory.ts";
import { memoryPlan, type PlannedModel, plannedAdapter } from "./memory-plan.ts";
import { type JudgeQuestion, type PlanInput, planRun, type RunPlan, trainedParameters } from "./plan.ts";
import { measureSpeed, type Speed } from "./speed.ts";
import type { StepShape } from "./step-workspace.ts";
import { taskLengths } from "./work.ts";

/** Bytes of a row in the store and in the run's files, beside its tokens and text. */
const rowBytes = 600;
/** Of a token: its id twice, and its text twice. */
const tokenBytes = 20;
/** Examples that are tokenized to know the length of all. */
const mostExamples = 2048;

/** What a whole run takes, before anything of it is computed. */
export interface RunEstimate extends RunPlan {
  parameters: number;
  speed: Speed;
  /** Numbers that the loop's trainings change: those of an adapter, or all. */
  trained: number;
  memory: { training: MemoryEstimate; generation: MemoryEstimate; available: number };
  /** state: what a training saves to go on from, and removes when it ends. */
  disk: { models: number; state: number; rows: number; total: number; free: number | null };
  /** What the figures take for granted. */
  assumptions: string[];
}

export interface EstimateOptions {
  settings: Settings;
  /** Folder of all runs: only its disk is looked at. */
  runs: string;
  observer: Observer;
  signal: AbortSignal | undefined;
}

/**
 * Tokens, hours, memory and disk of a run. Nothing is written but what the cache of the hub takes of a model that it lacks.
 */
export async function estimateRun(options: EstimateOptions): Promise<RunEstimate> {
  const { observer, signal } = options;
  const settings = await locateModels(options.settings, observer, signal);
  const note = (text: string) => observer.note(text);
  const source = settings.model === null ? worldSource(settings) : await fileSource(settings, note);
  const { config, tokenizer, dtype, unpacked } = await modelOf(source, settings);
  const { device, threads } = settings.engine;
  const speed = await measureSpeed(config, { device, threads, dtype, rows: settings.generation.maxRows });
  signal?.throwIfAborted();
  const adapter = await plannedAdapter(settings);
  const input = await planInput({ settings, source, config, tokenizer, dtype, adapter, speed, signal });
  const counted = planRun(input);
  const plan = unpacked ? { ...counted, models: counted.models + 1 } : counted;
  const parameters = countParameters(parameterShapes(config));
  const trained = trainedParameters(config, adapter);
  return {
    ...plan,
    parameters,
    trained,
    speed,
    memory: memoryOf(settings, { config, dtype, adapter }, input),
    disk: await diskOf(
      plan,
      { parameters, trained: adapter === null ? null : trained, bytes: dtype === "f32" ? 4 : 2 },
      options.runs,
    ),
    assumptions: assumptionsOf(settings, input.judge),
  };
}

interface OpenedModel {
  config: ModelConfig;
  tokenizer: Tokenizer;
  dtype: DType;
}

/** `unpacked`: whether the run keeps a decoded copy of it. */
async function modelOf({ start }: TaskSource, { engine }: Settings): Promise<OpenedModel & { unpacked: boolean }> {
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

interface InputParts extends OpenedModel {
  adapter: AdapterConfig | null;
  settings: Settings;
  source: TaskSource;
  speed: Speed;
  signal: AbortSignal | undefined;
}

async function planInput(parts: InputParts): Promise<PlanInput> {
  const { settings, source, config, tokenizer, signal } = parts;
  const judge = judgeQuestion(settings, source);
  const now = settings.date === null ? new Date() : new Date(settings.date);
  const lengths = (maxNewTokens: number) => {
    const options = { tokenizer, template: judge?.template ?? null, maxNewTokens, now };
    return { ...options, maxPositions: config.maxPositions };
  };
  const tasks = (iteration: number) =>
    source
      .training(iteration, settings.promptsPerIteration)
      .map((task) => taskLengths(task, lengths(settings.sampling.maxNewTokens)));
  const first: ReturnType<typeof tasks>[] = [];
  const lengthsOf = async (examples: readonly Example[]) => {
    if (examples.length === 0) return { mean: 0, longest: 0 };
    const every = Math.ceil(examples.length / mostExamples);
    const some = examples.filter((_, index) => index % every === 0);
    const rows = await manyExampleIds(some, tokenizer, { maxLength: config.maxPositions, now }, signal);
    const counts = rows.map((row) => row.promptIds.length + row.completionIds.length);
    return { mean: counts.reduce((sum, count) => sum + count, 0) / counts.length, longest: Math.max(...counts) };
  };
  const { data } = source.start;
  const rows = data?.rows() ?? [];
  const { mean, longest } = await lengthsOf(rows);
  return {
    ...parts,
    judge,
    graded: source.trueScore !== null,
    training: (iteration) => (first[iteration] ??= tasks(iteration)),
    heldOut: source.heldOut().map((task) => taskLengths(task, lengths(settings.evaluation.sampling.maxNewTokens))),
    replayTokens: settings.replay.weight > 0 ? (await lengthsOf(source.replay)).mean : 0,
    start: { rows: rows.length, tokens: Math.ceil(rows.length * mean), longest },
  };
}

function judgeQuestion({ judge }: Settings, source: TaskSource): JudgeQuestion | null {
  const kind = judge.kind === "function" ? (judge.quality?.kind ?? null) : judge.kind;
  if (kind === "expected") return { kind, template: source.judgeTemplate ?? yesNoTemplate };
  return kind === "sampled" ? { kind, template: source.judgeTemplate ?? defaultJudgeTemplate } : null;
}

/** The largest forest of a training whose longest item has so many tokens, `scored` of them scored. */
function largestStep(
  { batchPairs, maxTokens, gradientCheckpointing: checkpointing }: Settings["training"],
  item: { tokens: number; scored: number },
): StepShape {
  const tokens = Math.min(maxTokens, batchPairs * item.tokens);
  return { tokens, checkpointing, scoredTokens: Math.min(tokens, batchPairs * item.scored), treeTokens: item.scored };
}

function memoryOf(settings: Settings, model: PlannedModel, input: PlanInput): RunEstimate["memory"] {
  const { generation, training, start, engine, lora } = settings;
  const plan = memoryPlan(settings, model);
  const tasks = input.training(0);
  const answer = Math.max(1, ...tasks.map((task) => task.answer));
  const prompt = Math.max(1, ...tasks.map((task) => task.promptIds.length));
  const pair = { tokens: prompt + 2 * answer, scored: 2 * answer };
  const trainings = [trainingMemory(plan, largestStep(training, pair))];
  if (input.start.rows > 0) {
    const { rows, tokens, longest } = input.start;
    const wholeStart = settings.model === null || lora?.start === "full";
    const own = { ...plan, ...(wholeStart ? { adapter: null } : {}), examples: { rows, tokens } };
    trainings.push(trainingMemory(own, largestStep(start.training, { tokens: longest, scored: longest })));
  }
  return {
    training: trainings.reduce((most, one) => (one.total > most.total ? one : most)),
    generation: generationMemory(plan, {
      cacheTokens: generation.maxCacheTokens,
      rows: generation.maxRows,
      device: computesOnCpu(engine.device) ? "cpu" : "cuda",
    }),
    available: machineMemory(),
  };
}

/**
 * Refuses a run whose weights, gradients and moments alone the machine cannot hold; how long its answers get, and with
 * them the rest, nobody knows before.
 * @throws TemporaError
 */
export async function requireRunMemory(settings: Settings, { start }: TaskSource): Promise<void> {
  if (!computesOnCpu(settings.engine.device)) return;
  const { config, dtype } =
    start.kind === "new" ? { ...start, dtype: "f32" as const } : await openCheckpoint(start.folder);
  const adapter = await plannedAdapter(settings);
  const plan = memoryPlan(settings, { config, dtype: settings.engine.dtype ?? dtype, adapter });
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

async function diskOf(
  { models, adapters, rows, stages }: RunPlan,
  { parameters, trained, bytes }: { parameters: number; trained: number | null; bytes: number },
  runs: string,
): Promise<RunEstimate["disk"]> {
  const tokens = stages.reduce((sum, { totals }) => sum + totals.generatedTokens + totals.judgedTokens, 0);
  const parts = {
    models: models * parameters * bytes + adapters * (trained ?? 0) * 4,
    // Weights and both moments.
    state: trained === null ? parameters * (bytes + 8) : trained * 12,
    rows: rows * rowBytes + tokens * tokenBytes,
  };
  return { ...parts, total: parts.models + parts.state + parts.rows, free: await freeBytes(runs) };
}

function assumptionsOf(settings: Settings, judge: JudgeQuestion | null): string[] {
  const list = [
    "every answer and judgement at its longest, a pair of every prompt: a run takes no more tokens for them",
    "the time from a few steps with random weights of the model's widths, as fast as the machine is now",
    "memory of a training step of the longest rows, of --max-tokens at most",
  ];
  if (judge?.kind === "sampled" && settings.judge.retries > 0) {
    list.push(`no judgement is asked for again (up to ${settings.judge.retries} times where it gives no score)`);
  }
  if (settings.judge.kind === "endpoint" || settings.judge.kind === "function") {
    list.push(`nothing for the judge's own work (${settings.judge.kind})`);
  }
  return list;
}
