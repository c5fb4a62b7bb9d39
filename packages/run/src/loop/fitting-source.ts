import { setImmediate } from "node:timers/promises";
import { ContextFit, TooLongError } from "@tempora/text";
import { makeJudge, secondJudge } from "../judges/make-judge.ts";
import type { ModelRef } from "../models/model-ref.ts";
import type { LeftOut } from "../results/results.ts";
import { promptIds } from "../sources/conversation.ts";
import type { Task, TaskSource } from "../sources/source.ts";
import type { RunContext } from "../stages/context.ts";
import { choiceOf } from "../stages/judge.ts";

/** What the tasks are looked at with: a model is opened, never loaded. */
export type FitContext = Pick<RunContext, "settings" | "source" | "observer" | "signal" | "now"> & {
  host: Pick<RunContext["host"], "open" | "use">;
};

export interface FittingSource {
  source: TaskSource;
  /** null: all have room. */
  leftOut: LeftOut | null;
}

/**
 * The run's tasks without those whose answer has no room in the model's context, or whose judgement has none in the
 * judge's. All are looked at before anything is sampled: the first one that does not fit ends the run now, not in ten
 * hours, unless such are to be left out and counted.
 */
export async function fittingSource(context: FitContext, model: ModelRef, judge: ModelRef): Promise<FittingSource> {
  const { settings, source, signal, now } = context;
  const { tokenizer, checkpoint } = await context.host.open(model);
  const fit = new ContextFit(settings.skipTooLong);
  const requireJudgeRoom = await judgeRoom(context, judge);
  const tooLong = new Set<string>();
  const seen = new Set<string>();
  const look = async (tasks: readonly Task[], reserve: number) => {
    for (const task of tasks) {
      if (seen.has(task.id)) continue;
      if (seen.size % 1000 === 0) {
        await setImmediate();
        signal?.throwIfAborted();
      }
      seen.add(task.id);
      const options = { maxLength: checkpoint.config.maxPositions, reserve, now };
      const fits = fit.keep(() => {
        promptIds(task, tokenizer, options);
        requireJudgeRoom(task, reserve);
        return true;
      });
      if (fits === null) tooLong.add(task.id);
    }
    fit.requireSome(tasks.filter(({ id }) => !tooLong.has(id)).length);
  };
  // A baseline may run longer than the first strategy, until it has spent as much.
  const most = settings.baselines.length === 0 ? 0 : settings.maxBaselineIterations;
  for (let iteration = 0; iteration < Math.max(settings.iterations, most); iteration++) {
    const tasks = source.training(iteration, settings.promptsPerIteration);
    // Behind the last prompt the first ones come again.
    if (iteration >= settings.iterations && tasks.every(({ id }) => seen.has(id))) break;
    await look(tasks, settings.sampling.maxNewTokens);
  }
  await look(source.heldOut(), settings.evaluation.sampling.maxNewTokens);
  const summary = fit.summary("prompts");
  if (summary === null) return { source, leftOut: null };
  context.observer.note(`${summary}.`);
  const fits = ({ id }: Task) => !tooLong.has(id);
  const { file, row } = fit.first ?? {};
  return {
    source: {
      ...source,
      training: (iteration, count) => source.training(iteration, count).filter(fits),
      heldOut: () => source.heldOut().filter(fits),
    },
    leftOut: { prompts: fit.skipped, first: { ...(file && { file }), ...(row && { row }), reason: fit.reason ?? "" } },
  };
}

/**
 * Throws where the judge's context has no room for its question about a task, an answer of so many tokens, and the
 * longest judgement. An answer is counted in the tokens of the model that gives it, also where another one judges.
 */
async function judgeRoom(context: FitContext, judge: ModelRef): Promise<(task: Task, answer: number) => void> {
  const { tokenizer, checkpoint } = await context.host.open(judge);
  const { maxPositions } = checkpoint.config;
  const choice = choiceOf(context, judge);
  const { settings } = choice;
  // A limit that the context itself undercuts is none: such judgements end where the context does.
  const endless = settings.sampling.maxNewTokens >= maxPositions;
  const sampling = endless ? { ...settings.sampling, maxNewTokens: 1 } : settings.sampling;
  const reading = { ...choice, settings: { ...settings, sampling } };
  // Further judgements in words ask what the first ones ask; the second question of a judge by expectation is another.
  const second = settings.kind === "expected" ? secondJudge(reading) : null;
  const judges = [makeJudge(reading), second].filter((one) => one?.contextOf !== undefined);
  return (task, answer) => {
    const { id: promptId, prompt, text: promptText, variables, columns } = task;
    const unanswered = { promptId, prompt, promptText, text: "", variables, columns };
    for (const one of judges) {
      const need = (one?.contextOf?.(unanswered, tokenizer) ?? 0) + answer;
      if (need <= maxPositions) continue;
      throw new TooLongError(
        `The judge's question with this prompt, an answer of ${answer} tokens and a judgement take ${need} tokens, more than the context of ${maxPositions}`,
        {
          where: { ...task.where, field: "prompt" },
          remedy:
            "Lower sampling.maxNewTokens or judge.sampling.maxNewTokens, ask a shorter question (judge.template), or leave such prompts out (--skip-too-long).",
        },
      );
    }
  };
}
