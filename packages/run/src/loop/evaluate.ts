import { join } from "node:path";
import { interval95, spearman, winRate } from "@tempora/preferences";
import { writeJsonl } from "@tempora/text";
import type { ModelRef } from "../models/model-ref.ts";
import type { AnswerRow, Estimate, JudgeAudit, JudgeQuality, ModelResult } from "../results/results.ts";
import { asConversation } from "../sources/conversation.ts";
import type { Task } from "../sources/source.ts";
import { type Answer, answerStage } from "../stages/answer.ts";
import type { Position, RunContext } from "../stages/context.ts";
import { judgeStage } from "../stages/judge.ts";
import { distinctResponses } from "./pools.ts";

export interface EvaluationPlan {
  model: ModelRef;
  first: ModelRef;
  /** Scores answers where no program can: M0, or the external judge. */
  referee: ModelRef;
  runFolder: string;
  /** Folder of the model's strategy in the run folder: "" or "<strategy>/". */
  strategyFolder: string;
  /** True where this model will judge the loop's answers: then a collapsed judge stops the run here. */
  mustJudge: boolean;
  position: Position;
}

/** A model on the held-out prompts: its answers, against M0's, and its judgement of M0's answers and of its own. */
export async function evaluateModel(context: RunContext, plan: EvaluationPlan): Promise<ModelResult> {
  const { model, first } = plan;
  const tasks = context.source.heldOut(context.settings.evaluation.prompts);
  const own = await heldOutAnswers(context, model, tasks, plan.position);
  const base = model.hash === first.hash ? own : await heldOutAnswers(context, first, tasks, plan.position);
  const judge = await judgeQuality(context, plan, tasks, { base, own });
  const graded = context.source.trueScore;
  const score = async (answers: readonly Answer[], name: string): Promise<(number | null)[]> =>
    graded === null
      ? refereeScores(context, plan, tasks, answers, name)
      : answers.map(({ text }, k) => graded(tasks[k] as Task, text));
  const scores = await score(own, model.name);
  const isFirst = model.hash === first.hash;
  const answersFile = `${plan.strategyFolder}evaluation/${model.name}.jsonl`;
  const { tokenizer } = await context.host.open(model);
  await writeJsonl(
    join(plan.runFolder, answersFile),
    own.map(
      (answer, k): AnswerRow => ({
        prompt_id: (tasks[k] as Task).id,
        prompt: asConversation((tasks[k] as Task).prompt, tokenizer),
        text: answer.text,
        tokens: answer.ids.length,
        finish_reason: answer.finishReason,
        true_score: graded === null ? null : (scores[k] ?? null),
        judged_score: graded === null ? (scores[k] ?? null) : null,
      }),
    ),
  );
  return {
    model: model.name,
    folder: `${plan.strategyFolder}models/${model.name}`,
    answersFile,
    trueScore: graded === null ? null : interval95(scores.filter((value): value is number => value !== null)),
    winRate: isFirst ? null : winsAgainst(scores, await score(base, first.name)),
    winRateBy: graded === null ? "judge" : "true score",
    answerLength: own.reduce((sum, { ids }) => sum + ids.length, 0) / own.length,
    judge,
  };
}

async function heldOutAnswers(
  context: RunContext,
  model: ModelRef,
  tasks: readonly Task[],
  position: Position,
): Promise<Answer[]> {
  const { sampling } = context.settings.evaluation;
  const answers = await answerStage(context, {
    model,
    tasks,
    samples: 1,
    sampling,
    purpose: "evaluation",
    position,
  });
  const list: Answer[] = [];
  for await (const { answers: own } of answers.byTask()) list.push(own[0] as Answer);
  return list;
}

/** Prompts where one side has no score are left out. */
function winsAgainst(own: readonly (number | null)[], base: readonly (number | null)[]): Estimate {
  const both = own.flatMap((value, k) => {
    const other = base[k] ?? null;
    return value === null || other === null ? [] : [[value, other] as const];
  });
  const { rate, low, high, count } = winRate(
    both.map(([value]) => value),
    both.map(([, other]) => other),
  );
  return { mean: rate, low, high, count };
}

async function refereeScores(
  context: RunContext,
  plan: EvaluationPlan,
  tasks: readonly Task[],
  answers: readonly Answer[],
  name: string,
): Promise<(number | null)[]> {
  const distinct = await distinctResponses(tasks, oneEach(answers));
  const { scores } = await judgeStage(context, {
    judge: plan.referee,
    responses: distinct.responses,
    judgements: context.settings.evaluation.judgements,
    label: `held-out answers of ${name}`,
    stopWhenCollapsed: true,
    position: plan.position,
  });
  return answers.map(({ sample }, task) => {
    const response = distinct.indexOf(task, sample);
    return response === null ? null : (scores[response] ?? null);
  });
}

/** How well the model's judgements agree with the truth, where there is one, and how they went. */
async function judgeQuality(
  context: RunContext,
  plan: EvaluationPlan,
  tasks: readonly Task[],
  answers: { base: readonly Answer[]; own: readonly Answer[] },
): Promise<JudgeQuality> {
  const { model, first, mustJudge } = plan;
  const ofFirst = await agreement(context, plan, tasks, { of: first, answers: answers.base, mustJudge });
  // Its own answers are what the model judges in the loop, and all that changes when it improves.
  const spearmanOwn =
    model.hash === first.hash || context.source.trueScore === null
      ? ofFirst.spearman
      : (await agreement(context, plan, tasks, { of: model, answers: answers.own, mustJudge: false })).spearman;
  return { ...ofFirst.audit, spearman: ofFirst.spearman, spearmanOwn };
}

function oneEach(answers: readonly Answer[]) {
  return { byTask: () => answers.map((answer) => ({ answers: [answer] })) };
}

interface Agreement {
  audit: JudgeAudit;
  /** Rank correlation of the mean judgement with the true score; null without one. */
  spearman: number | null;
}

/** The model judges answers of one model to the first held-out prompts. */
async function agreement(
  context: RunContext,
  plan: EvaluationPlan,
  tasks: readonly Task[],
  judged: { of: ModelRef; answers: readonly Answer[]; mustJudge: boolean },
): Promise<Agreement> {
  const { judgedPrompts, judgements } = context.settings.evaluation;
  const prompts = tasks.slice(0, judgedPrompts);
  const distinct = await distinctResponses(prompts, oneEach(judged.answers.slice(0, prompts.length)));
  const { scores, audit } = await judgeStage(context, {
    judge: plan.model,
    responses: distinct.responses,
    judgements,
    label: `held-out answers of ${judged.of.name}`,
    stopWhenCollapsed: judged.mustJudge,
    position: plan.position,
  });
  const { trueScore } = context.source;
  if (trueScore === null) return { audit, spearman: null };
  const both = distinct.first.flatMap(({ task }, response) => {
    const score = scores[response] ?? null;
    if (score === null) return [];
    return [[score, trueScore(tasks[task] as Task, (judged.answers[task] as Answer).text)] as const];
  });
  const correlation = spearman(
    both.map(([score]) => score),
    both.map(([, truth]) => truth),
  );
  return { audit, spearman: correlation };
}
