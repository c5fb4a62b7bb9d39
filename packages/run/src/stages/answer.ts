import { join } from "node:path";
import { hashJson } from "@tempora/errors";
import { deriveSeed } from "@tempora/training";
import type { LoadedModel } from "../models/model-host.ts";
import type { ModelRef } from "../models/model-ref.ts";
import { Meter } from "../results/ledger.ts";
import type { LedgerTotals } from "../results/results.ts";
import { BufferedLog, meterPrompts, type SamplingRequest, sample } from "../sampling/sampling.ts";
import type { Settings } from "../settings/settings.ts";
import { promptIds } from "../sources/conversation.ts";
import type { Task } from "../sources/source.ts";
import { type Position, type RunContext, runStage } from "./context.ts";

/** One sampled answer, as the store keeps it. */
export interface Answer {
  /** Index into the tasks. */
  task: number;
  sample: number;
  text: string;
  tokens: number;
  logProb: number;
  finishReason: "stop" | "length";
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
  /** [tasks][samples] */
  byTask: Answer[][];
  totals: LedgerTotals;
}

/** Samples answers of one model to all tasks. An interrupted stage goes on with the answers that are missing. */
export async function answerStage(context: RunContext, plan: AnswerPlan): Promise<Answers> {
  const { model, tasks, samples } = plan;
  const { settings } = context;
  const seed = deriveSeed(settings.seed, plan.purpose, model.hash);
  const { result } = await runStage(context, {
    kind: "answers",
    label: `${plan.purpose === "candidates" ? "candidates" : "held-out answers"} of ${model.name}`,
    total: tasks.length * samples,
    unit: "answers",
    position: plan.position,
    inputs: {
      model: model.hash,
      tasks: hashJson(tasks.map(({ id, prompt }) => [id, hashJson(prompt as never)])),
      samples,
      sampling: plan.sampling,
      seed,
    },
    compute: async (folder, progress) => {
      const loaded = await context.host.use(model);
      const requests = answerRequests(loaded, tasks, samples);
      const log = await BufferedLog.open<Answer>(join(folder, "answers.jsonl"));
      try {
        await fillIn(context, plan, { loaded, requests, log, seed, progress });
      } finally {
        await log.close();
      }
      const answers = [...log.rows].sort((a, b) => a.task - b.task || a.sample - b.sample);
      return { answers, totals: meterAnswers(loaded, requests, answers) };
    },
  });
  const byTask: Answer[][] = tasks.map(() => []);
  for (const answer of result.answers) byTask[answer.task]?.push(answer);
  return { byTask, totals: result.totals };
}

function answerRequests(loaded: LoadedModel, tasks: readonly Task[], samples: number): SamplingRequest[] {
  const { tokenizer, checkpoint } = loaded;
  return tasks.map((task) => ({
    key: task.id,
    ids: promptIds(task, tokenizer, checkpoint.config.maxPositions),
    samples,
  }));
}

interface FillIn {
  loaded: LoadedModel;
  requests: readonly SamplingRequest[];
  log: BufferedLog<Answer>;
  seed: number;
  progress(done: number, extra?: Record<string, number>): void;
}

/** Samples what the log does not have yet. A prompt that lacks one sample gets all of its samples again. */
async function fillIn(context: RunContext, plan: AnswerPlan, work: FillIn): Promise<void> {
  const have = new Set(work.log.rows.map(({ task, sample }) => `${task}:${sample}`));
  const samples = Array.from({ length: plan.samples }, (_, k) => k);
  const requests = work.requests.map((request, task) =>
    samples.every((k) => have.has(`${task}:${k}`)) ? { ...request, samples: 0 } : request,
  );
  let done = have.size;
  let newTokens = 0;
  const begun = performance.now();
  work.progress(done);
  const sampled = sample(work.loaded, requests, {
    sampling: plan.sampling,
    limits: context.settings.generation,
    seed: work.seed,
    signal: context.signal,
  });
  for await (const { request: task, sample: number, text, ids, logProb, finishReason } of sampled) {
    newTokens += ids.length;
    if (have.has(`${task}:${number}`)) continue;
    await work.log.add({ task, sample: number, text, tokens: ids.length, logProb, finishReason });
    work.progress(++done, { "tokens/s": (1000 * newTokens) / (performance.now() - begun) });
  }
}

function meterAnswers(
  loaded: LoadedModel,
  requests: readonly SamplingRequest[],
  answers: readonly Answer[],
): LedgerTotals {
  const meter = new Meter(loaded.checkpoint.config);
  meterPrompts(meter, requests);
  for (const { task, tokens } of answers) {
    meter.generated((requests[task] as SamplingRequest).ids.length, tokens, "answer");
  }
  return meter.totals;
}
