import type { Json } from "@tempora/errors";
import { deriveSeed } from "@tempora/training";
import type { LoadedModel } from "../models/model-host.ts";
import type { ModelRef } from "../models/model-ref.ts";
import { Meter } from "../results/ledger.ts";
import type { LedgerTotals } from "../results/results.ts";
import { meterPrompts, type SamplingRequest, sample } from "../sampling/sampling.ts";
import type { Settings } from "../settings/settings.ts";
import { promptIds } from "../sources/conversation.ts";
import type { Task } from "../sources/source.ts";
import { ContentHash } from "../store/content-hash.ts";
import { RowLog, type SealedRows, sealedRows } from "../store/row-log.ts";
import { dateFor, type Position, type RunContext, runStage } from "./context.ts";

/** One sampled answer, as the store keeps it. */
export interface Answer {
  /** Index into the tasks. */
  task: number;
  sample: number;
  /** For people and judges. What was sampled are the ids. */
  text: string;
  /** With the end token, where one was sampled. */
  ids: number[];
  /** Summed over the ids. */
  logProb: number;
  finishReason: "stop" | "length";
}

/** What the model read of one task, as the store keeps it. */
interface Asked {
  task: number;
  ids: number[];
}

/** All answers to one task, in the order of the samples. */
export interface AnsweredTask {
  promptIds: number[];
  answers: Answer[];
}

export interface AnswerPlan {
  model: ModelRef;
  tasks: readonly Task[];
  samples: number;
  sampling: Settings["sampling"];
  /** What the answers are for; part of the random numbers. */
  purpose: "candidates" | "evaluation";
  position: Position;
}

export interface Answers {
  /** Task after task, read from the store as it is asked for. */
  byTask(): AsyncGenerator<AnsweredTask>;
  totals: LedgerTotals;
}

interface AnsweredStage {
  prompts: SealedRows;
  answers: SealedRows;
  totals: LedgerTotals;
}

/** Samples answers of one model to all tasks. An interrupted stage goes on with the answers that are missing. */
export async function answerStage(context: RunContext, plan: AnswerPlan): Promise<Answers> {
  const { model, tasks, samples } = plan;
  const { settings } = context;
  const seed = deriveSeed(settings.seed, plan.purpose, model.hash);
  const { tokenizer } = await context.host.open(model);
  const { result, folder } = await runStage<AnsweredStage>(context, {
    kind: "answers",
    label: `${plan.purpose === "candidates" ? "candidates" : "held-out answers"} of ${model.name}`,
    total: tasks.length * samples,
    unit: "answers",
    position: plan.position,
    inputs: {
      model: model.hash,
      tasks: hashTasks(tasks),
      date: dateFor(context, tokenizer),
      samples,
      sampling: plan.sampling,
      seed,
    },
    compute: async (stage, progress, id) => {
      const loaded = await context.host.use(model);
      const requests = answerRequests(loaded, tasks, samples, context.now);
      const prompts = await logPrompts(stage, requests);
      const log = await RowLog.open<Answer>(stage, "answers", {
        place: ({ task, sample: number }) => task * samples + number,
      });
      try {
        await fillIn(context, plan, { loaded, requests, log, seed, progress, id });
      } finally {
        await log.close();
      }
      const answers = await log.seal();
      const totals = await meterAnswers(loaded, requests, sealedRows<Answer>(stage, "answers", answers));
      return { prompts, answers, totals };
    },
  });
  return { byTask: () => answeredTasks(folder, result, samples), totals: result.totals };
}

function hashTasks(tasks: readonly Task[]): string {
  const hash = new ContentHash();
  for (const { id, prompt, variables } of tasks) hash.text(id).json([prompt, variables ?? null] as unknown as Json);
  return hash.digest();
}

function answerRequests(loaded: LoadedModel, tasks: readonly Task[], samples: number, now: Date): SamplingRequest[] {
  const { tokenizer, checkpoint } = loaded;
  return tasks.map((task) => ({
    key: task.id,
    ids: promptIds(task, tokenizer, { maxLength: checkpoint.config.maxPositions, now }),
    samples,
  }));
}

async function logPrompts(stage: string, requests: readonly SamplingRequest[]): Promise<SealedRows> {
  const log = await RowLog.open<Asked>(stage, "prompts", { place: ({ task }) => task });
  try {
    for (const [task, { ids }] of requests.entries()) await log.add({ task, ids: [...ids] });
  } finally {
    await log.close();
  }
  return log.seal();
}

interface FillIn {
  loaded: LoadedModel;
  requests: readonly SamplingRequest[];
  log: RowLog<Answer>;
  seed: number;
  progress(done: number, extra?: Record<string, number>): void;
  /** Of the stage, for the observer. */
  id: string;
}

/** Samples what the log does not have yet. A prompt that lacks one sample gets all of its samples again. */
async function fillIn(context: RunContext, plan: AnswerPlan, work: FillIn): Promise<void> {
  const { log } = work;
  const samples = Array.from({ length: plan.samples }, (_, k) => k);
  const requests = work.requests.map((request, task) =>
    samples.every((k) => log.has(task * plan.samples + k)) ? { ...request, samples: 0 } : request,
  );
  let newTokens = 0;
  const begun = performance.now();
  work.progress(log.count);
  const sampled = sample(work.loaded, requests, {
    sampling: plan.sampling,
    limits: context.settings.generation,
    seed: work.seed,
    signal: context.signal,
  });
  for await (const { request: task, sample: number, text, ids, logProbs, finishReason } of sampled) {
    newTokens += ids.length;
    const logProb = logProbs.reduce((sum, value) => sum + value, 0);
    if (!(await log.add({ task, sample: number, text, ids, logProb, finishReason }))) continue;
    context.observer.sampled(work.id, { model: plan.model.name, prompt: (plan.tasks[task] as Task).prompt, text });
    work.progress(log.count, { "tokens/s": (1000 * newTokens) / (performance.now() - begun) });
  }
}

async function meterAnswers(
  loaded: LoadedModel,
  requests: readonly SamplingRequest[],
  answers: AsyncIterable<Answer>,
): Promise<LedgerTotals> {
  const meter = new Meter(loaded.checkpoint.config);
  meterPrompts(meter, requests);
  for await (const { task, ids } of answers) {
    meter.generated((requests[task] as SamplingRequest).ids.length, ids.length, "answer");
  }
  return meter.totals;
}

async function* answeredTasks(folder: string, result: AnsweredStage, samples: number): AsyncGenerator<AnsweredTask> {
  const answers = sealedRows<Answer>(folder, "answers", result.answers);
  try {
    for await (const { ids } of sealedRows<Asked>(folder, "prompts", result.prompts)) {
      const own: Answer[] = [];
      while (own.length < samples) own.push((await answers.next()).value as Answer);
      yield { promptIds: ids, answers: own };
    }
    // Read to its end, the log is checked against what was sealed.
    await answers.next();
  } finally {
    await answers.return(undefined);
  }
}
