import { attendedPositions, forwardFlops } from "../results/ledger.ts";
import type { Observer } from "../results/observer.ts";
import type { Settings } from "../settings/settings.ts";
import { promptIds } from "../sources/conversation.ts";
import type { TaskSource } from "../sources/source.ts";
import { gibibytes } from "./gibibytes.ts";
import { computesOnCpu, type MemoryEstimate, machineMemory, requireMemory, trainingMemory } from "./memory.ts";
import { memoryPlan, type PlannedModel, plannedAdapter } from "./memory-plan.ts";
import { memoryOf, modelOf, type OpenedModel, type RowLengths, startLengths } from "./run-memory.ts";
import { measureTraining, stepSeconds } from "./step-time.ts";

/** Rows and prompts that are tokenized as a run begins, to know the length of all. */
const mostTasks = 256;

/**
 * Refuses a run whose weights, gradients and moments alone the machine cannot hold, whose longest answers nobody knows
 * before; of one that may fit, tells what it takes at most, and how long a step of its trainings.
 * @throws TemporaError
 */
export async function tellRunOutlook(settings: Settings, source: TaskSource, observer: Observer): Promise<void> {
  const opened = await modelOf(source, settings);
  const model = { ...opened, adapter: await plannedAdapter(settings) };
  const onCpu = computesOnCpu(settings.engine.device);
  if (onCpu) requireHeld(settings, model);
  const lengths = await someLengths(settings, source, opened);
  if (onCpu) {
    const { training, generation, available } = memoryOf(settings, model, lengths);
    const machine = `the machine has ${gibibytes(available)}`;
    observer.note(
      `Memory: training takes about ${shown(training)}, generation ${shown(generation)} at most; ${machine}.`,
    );
  }
  if (lengths.tasks.length === 0) return;
  const seconds = await longestStep(settings, model, lengths);
  observer.note(
    `Time: a training step takes about ${inWords(seconds)} where answers are of full length; --dry-run estimates the whole run.`,
  );
}

/** Seconds of a step over pairs of the mean prompt and answers of full length. */
async function longestStep(settings: Settings, model: PlannedModel, { tasks }: RowLengths): Promise<number> {
  const { device, threads } = settings.engine;
  const { batchPairs, maxTokens, gradientCheckpointing: checkpointing } = settings.training;
  const mean = (values: readonly number[]) => Math.ceil(values.reduce((sum, value) => sum + value, 0) / values.length);
  const [prompt, answer] = [mean(tasks.map((task) => task.promptIds.length)), mean(tasks.map((task) => task.answer))];
  const trained = { ...memoryPlan(settings, model), checkpointing };
  const rows = Math.min(batchPairs, Math.floor(maxTokens / (prompt + 2 * answer)));
  const speed = await measureTraining(trained, { device, threads }, { prompt, completions: [answer, answer], rows });
  const { config } = model;
  const pair = forwardFlops(config, {
    tokens: prompt + 2 * answer,
    attended: attendedPositions(config, 0, prompt) + 2 * attendedPositions(config, prompt, answer),
    headRows: 2 * answer,
  });
  return stepSeconds(trained, speed, batchPairs * pair);
}

/** "4 ms", "1.6 s", "140 s" */
function inWords(seconds: number): string {
  if (seconds < 0.0995) return `${Math.ceil(1000 * seconds)} ms`;
  return `${seconds < 9.95 ? seconds.toFixed(1) : Math.round(seconds)} s`;
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
