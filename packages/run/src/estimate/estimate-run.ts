import { type AdapterConfig, parameterShapes } from "@tempora/engine";
import { defaultJudgeTemplate, yesNoTemplate } from "@tempora/preferences";
import { countParameters } from "../results/ledger.ts";
import type { Settings } from "../settings/settings.ts";
import type { TaskSource } from "../sources/source.ts";
import { freeBytes } from "./disk.ts";
import { memoryPlan, plannedAdapter } from "./memory-plan.ts";
import { type JudgeQuestion, type PlanInput, planRun, type RunPlan, trainedParameters } from "./plan.ts";
import {
  lengthsOf,
  memoryOf,
  modelOf,
  type OpenedModel,
  type RowLengths,
  type RunMemory,
  startLengths,
} from "./run-memory.ts";
import { measureSpeed, type Speed } from "./speed.ts";
import { taskLengths } from "./work.ts";

/** Bytes of a row in the store and in the run's files, beside its tokens and text. */
const rowBytes = 600;
/** Of a token: its id twice, and its text twice. */
const tokenBytes = 20;

/** Rows that are tokenized to know the length of all. */
const mostExamples = 2048;

/** What a whole run takes, before anything of it is computed. */
export interface RunEstimate extends RunPlan {
  parameters: number;
  speed: Speed;
  /** Numbers that the loop's trainings change: those of an adapter, or all. */
  trained: number;
  memory: RunMemory;
  /** state: what a training saves to go on from, and removes when it ends. */
  disk: { models: number; state: number; rows: number; total: number; free: number | null };
  /** What the figures take for granted. */
  assumptions: string[];
}

export interface EstimateOptions {
  /** Their models lie on this machine (locateModels). */
  settings: Settings;
  /** The prompts that the run will answer. */
  source: TaskSource;
  /** Folder of all runs: only its disk is looked at. */
  runs: string;
  signal: AbortSignal | undefined;
}

/** Tokens, hours, memory and disk of a run. Nothing is written. */
export async function estimateRun({ settings, source, runs, signal }: EstimateOptions): Promise<RunEstimate> {
  const { config, tokenizer, dtype, unpacked } = await modelOf(source, settings);
  const { device, threads } = settings.engine;
  const adapter = await plannedAdapter(settings);
  const trained = {
    ...memoryPlan(settings, { config, dtype, adapter }),
    checkpointing: settings.training.gradientCheckpointing,
  };
  const speed = await measureSpeed(trained, { device, threads, rows: settings.generation.maxRows });
  signal?.throwIfAborted();
  const input = await planInput({ settings, source, config, tokenizer, dtype, adapter, speed, signal });
  const counted = planRun(input);
  const plan = unpacked ? { ...counted, models: counted.models + 1 } : counted;
  const parameters = countParameters(parameterShapes(config));
  const numbers = trainedParameters(config, adapter);
  return {
    ...plan,
    parameters,
    trained: numbers,
    speed,
    memory: memoryOf(settings, { config, dtype, adapter }, rowLengths(input)),
    disk: await diskOf(
      plan,
      { parameters, trained: adapter === null ? null : numbers, bytes: dtype === "f32" ? 4 : 2 },
      runs,
    ),
    assumptions: assumptionsOf(settings, input.judge),
  };
}

function rowLengths({ training, heldOut, start }: PlanInput): RowLengths {
  const tasks = training(0);
  return { tasks, prompts: Math.max(tasks.length, heldOut.length), start };
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
  const reading = { tokenizer, maxLength: config.maxPositions, now, signal };
  const replay = settings.replay.weight > 0 ? source.replay.slice(0, mostExamples) : [];
  return {
    ...parts,
    judge,
    graded: source.trueScore !== null,
    training: (iteration) => (first[iteration] ??= tasks(iteration)),
    heldOut: source.heldOut().map((task) => taskLengths(task, lengths(settings.evaluation.sampling.maxNewTokens))),
    replayTokens: (await lengthsOf(replay, reading)).mean,
    start: await startLengths(source.start, mostExamples, reading),
  };
}

function judgeQuestion({ judge }: Settings, source: TaskSource): JudgeQuestion | null {
  const kind = judge.kind === "function" ? (judge.quality?.kind ?? null) : judge.kind;
  if (kind === "expected") return { kind, template: source.judgeTemplate ?? yesNoTemplate };
  return kind === "sampled" ? { kind, template: source.judgeTemplate ?? defaultJudgeTemplate } : null;
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
