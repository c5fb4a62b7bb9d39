import { setImmediate } from "node:timers/promises";
import type { ModelConfig } from "@tempora/engine";
import type { Json } from "@tempora/errors";
import { deriveSeed } from "@tempora/training";
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

/** As `AnswerPlan`, of several models. */
export interface TogetherPlan extends Omit<AnswerPlan, "model"> {
  models: readonly ModelRef[];
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
export async function answerStage(context: RunContext, { model, ...plan }: AnswerPlan): Promise<Answers> {
  return (await answersTogether(context, { ...plan, models: [model] }))[0] as Answers;
}

/**
 * The answers of models that are adapters over one base (or the base itself) by one generation; a stage each, with the rows that
 * `answerStage` would give it.
 */
export async function answersTogether(context: RunContext, plan: TogetherPlan): Promise<Answers[]> {
  const all: Answers[] = [];
  // Every stage that is not in the store yet is open while those after it open; then all are filled in.
  const openFrom = async (index: number, open: readonly OpenStage[]): Promise<void> => {
    const model = plan.models[index];
    if (model === undefined) return open.length === 0 ? undefined : fillIn(context, plan, open);
    const opened = { was: false };
    const { result, folder } = await runStage<AnsweredStage>(context, {
      ...(await stageOf(context, plan, model)),
      compute: async (stage, progress, id) => {
        opened.was = true;
        const prompts = await logPrompts(context, plan, model, stage);
        const asked = () => sealedRows<Asked>(stage, "prompts", prompts);
        const { samples } = plan;
        const place = ({ task, sample: number }: Answer) => task * samples + number;
        const log = await RowLog.open<Answer>(stage, "answers", { place });
        try {
          await openFrom(index + 1, [...open, { model, asked, log, progress, id }]);
        } finally {
          await log.close();
        }
        const answers = await log.seal();
        const { config } = (await context.host.open(model)).checkpoint;
        const totals = await meterAnswers(config, asked(), answeredTasks(stage, { prompts, answers }, samples));
        return { prompts, answers, totals };
      },
    });
    if (!opened.was) await openFrom(index + 1, open);
    all[index] = { byTask: () => answeredTasks(folder, result, plan.samples), totals: result.totals };
  };
  await openFrom(0, []);
  return all;
}

async function stageOf(context: RunContext, plan: TogetherPlan, model: ModelRef) {
  const { tasks, samples, sampling, purpose, position } = plan;
  const { tokenizer } = await context.host.open(model);
  return {
    kind: "answers",
    label: `${purpose === "candidates" ? "candidates" : "held-out answers"} of ${model.name}`,
    total: tasks.length * samples,
    unit: "answers",
    position,
    inputs: {
      model: model.hash,
      tasks: hashTasks(tasks),
      date: dateFor(context, tokenizer),
      samples,
      sampling,
      seed: seedOf(context, plan, model),
    },
  };
}

function seedOf({ settings }: RunContext, { purpose }: TogetherPlan, model: ModelRef): number {
  return deriveSeed(settings.seed, purpose, model.hash);
}

function hashTasks(tasks: readonly Task[]): string {
  const hash = new ContentHash();
  for (const { id, prompt, variables } of tasks) hash.text(id).json([prompt, variables ?? null] as unknown as Json);
  return hash.digest();
}

/** Writes what the model reads of every task: from there it is taken, for the ids of all tasks at once are too much to keep. */
async function logPrompts(
  context: RunContext,
  { tasks }: TogetherPlan,
  model: ModelRef,
  stage: string,
): Promise<SealedRows> {
  const { tokenizer, checkpoint } = await context.host.open(model);
  const { maxPositions: maxLength } = checkpoint.config;
  const log = await RowLog.open<Asked>(stage, "prompts", { place: ({ task }) => task });
  try {
    for (const [number, task] of tasks.entries()) {
      if (number % 1000 === 0) {
        await setImmediate();
        context.signal?.throwIfAborted();
      }
      if (log.has(number)) continue;
      await log.add({ task: number, ids: promptIds(task, tokenizer, { maxLength, now: context.now }) });
    }
  } finally {
    await log.close();
  }
  return log.seal();
}

/** A stage whose answers are being sampled. */
interface OpenStage {
  model: ModelRef;
  /** Task after task. */
  asked(): AsyncGenerator<Asked>;
  log: RowLog<Answer>;
  progress(done: number, extra?: Record<string, number>): void;
  /** For the observer. */
  id: string;
}

/** Samples what the logs do not have yet. */
async function fillIn(context: RunContext, plan: TogetherPlan, open: readonly OpenStage[]): Promise<void> {
  const { loaded, adapters } = await context.host.useTogether(open.map(({ model }) => model));
  let newTokens = 0;
  const begun = performance.now();
  for (const { progress, log } of open) progress(log.count);
  const requests = interleavedRequests(context, plan, open, open.length === 1 ? [] : adapters);
  const sampled = sample(loaded, requests, {
    sampling: plan.sampling,
    limits: context.settings.generation,
    seed: 0, // each request has its own
    signal: context.signal,
  });
  for await (const { request, sample: number, text, ids, logProbs, finishReason } of sampled) {
    newTokens += ids.length;
    const task = Math.floor(request / open.length);
    const { model, log, progress, id } = open[request % open.length] as OpenStage;
    const logProb = logProbs.reduce((sum, value) => sum + value, 0);
    if (!(await log.add({ task, sample: number, text, ids, logProb, finishReason }))) continue;
    context.observer.sampled(id, { model: model.name, prompt: (plan.tasks[task] as Task).prompt, text });
    progress(log.count, { "tokens/s": (1000 * newTokens) / (performance.now() - begun) });
  }
}

/** Of every task, what each stage asks. A prompt that lacks one sample gets all of its samples again. */
async function* interleavedRequests(
  context: RunContext,
  plan: TogetherPlan,
  open: readonly OpenStage[],
  adapters: readonly (string | null)[],
): AsyncGenerator<SamplingRequest> {
  const samples = Array.from({ length: plan.samples }, (_, k) => k);
  const stages = open.map(({ model, log, asked }, index) => ({
    log,
    reader: asked(),
    own: {
      seed: seedOf(context, plan, model),
      ...(index in adapters ? { adapter: adapters[index] as string | null } : {}),
    },
  }));
  try {
    for (const [task, { id: key }] of plan.tasks.entries()) {
      for (const { log, reader, own } of stages) {
        const { ids } = (await reader.next()).value as Asked;
        const all = samples.every((k) => log.has(task * plan.samples + k));
        yield { key, ids, samples: all ? 0 : plan.samples, ...own };
      }
    }
    // Read to its end, a log is checked against what was sealed.
    for (const { reader } of stages) await reader.next();
  } finally {
    for (const { reader } of stages) await reader.return(undefined);
  }
}

async function meterAnswers(
  config: ModelConfig,
  asked: AsyncIterable<Asked>,
  answered: AsyncIterable<AnsweredTask>,
): Promise<LedgerTotals> {
  const meter = new Meter(config);
  await meterPrompts(meter, promptsOf(asked));
  for await (const { promptIds: prompt, answers } of answered) {
    for (const { ids } of answers) meter.generated(prompt.length, ids.length, "answer");
  }
  return meter.totals;
}

async function* promptsOf(asked: AsyncIterable<Asked>): AsyncGenerator<SamplingRequest> {
  for await (const { task, ids } of asked) yield { key: `${task}`, ids, samples: 0 };
}

async function* answeredTasks(
  folder: string,
  result: Pick<AnsweredStage, "prompts" | "answers">,
  samples: number,
): AsyncGenerator<AnsweredTask> {
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
