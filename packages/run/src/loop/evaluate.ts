import { join } from "node:path";
import { collapsed, interval95, lengthControlledWinRate, spearman, type WinRate, winRate } from "@tempora/preferences";
import { writeJsonl } from "@tempora/text";
import type { ModelRef } from "../models/model-ref.ts";
import type { AnswerRow, Estimate, JudgeAudit, JudgeQuality, ModelResult } from "../results/results.ts";
import { asConversation } from "../sources/conversation.ts";
import type { Task } from "../sources/source.ts";
import { type Answer, answerStage } from "../stages/answer.ts";
import { noteFinding, type Position, type RunContext } from "../stages/context.ts";
import { judgeStage } from "../stages/judge.ts";
import { keptOutcome } from "../stages/outcome.ts";
import { nameAndHash, outcomeInputs } from "./outcome-inputs.ts";
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

/**
 * A model on the held-out prompts: its answers, against M0's, and its judgement of M0's answers and of its own. Where that was
 * measured before, no row of it is read again.
 */
export async function evaluateModel(context: RunContext, plan: EvaluationPlan): Promise<ModelResult> {
  const { model, first, referee, mustJudge, position } = plan;
  const tasks = context.source.heldOut();
  return keptOutcome<ModelResult>(context, {
    kind: "evaluation",
    label: `evaluation of ${model.name}`,
    runFolder: plan.runFolder,
    inputs: {
      ...outcomeInputs(context, { ...plan, judge: model }, tasks),
      first: nameAndHash(first),
      referee: nameAndHash(referee),
      mustJudge,
      position: { ...position },
    },
    files: ({ answersFile }) => [answersFile],
    compute: (recording) => measure(recording, plan, tasks),
  });
}

async function measure(context: RunContext, plan: EvaluationPlan, tasks: readonly Task[]): Promise<ModelResult> {
  const { model, first } = plan;
  const own = await heldOutAnswers(context, model, tasks, plan.position);
  const base = model.hash === first.hash ? own : await heldOutAnswers(context, first, tasks, plan.position);
  const judge = await judgeQuality(context, plan, tasks, { base, own });
  const score = (answers: readonly Answer[], name: string) => heldOutScores(context, plan, tasks, answers, name);
  const { scores, parts } = await score(own, model.name);
  const graded = context.source.trueScore !== null;
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
        true_score: graded ? (scores[k] ?? null) : null,
        judged_score: graded ? null : (scores[k] ?? null),
        ...partsOf(parts, k),
      }),
    ),
  );
  const tokens = own.reduce((sum, { ids }) => sum + ids.length, 0);
  const heldOutScore = meanScore(scores);
  const isFirst = model.hash === first.hash;
  const against = isFirst ? null : { scores: (await score(base, first.name)).scores, answers: base };
  const wins = against === null ? null : winsAgainst({ scores, answers: own }, against);
  return {
    model: model.name,
    folder: `${plan.strategyFolder}models/${model.name}`,
    answersFile,
    trueScore: graded ? heldOutScore : null,
    heldOutScore,
    judgedParts: Object.fromEntries(Object.entries(parts).map(([name, list]) => [name, meanScore(list)])),
    winRate: wins?.plain ?? null,
    lengthControlledWinRate: wins?.lengthControlled ?? null,
    winRateBy: graded ? "true score" : "judge",
    answerLength: tokens / own.length,
    tokenEntropy: -own.reduce((sum, { logProb }) => sum + logProb, 0) / tokens,
    judge,
  };
}

interface HeldOutScores {
  /** [prompts]; null where there is none. */
  scores: (number | null)[];
  /** Of a judge that is a weighted sum: its parts' scores, [prompts]. */
  parts: Record<string, (number | null)[]>;
}

/** True scores where a program can grade, else the referee's. */
async function heldOutScores(
  context: RunContext,
  plan: EvaluationPlan,
  tasks: readonly Task[],
  answers: readonly Answer[],
  name: string,
): Promise<HeldOutScores> {
  const { trueScore } = context.source;
  if (trueScore === null) return refereeScores(context, plan, tasks, answers, name);
  return { scores: answers.map(({ text }, k) => trueScore(tasks[k] as Task, text)), parts: {} };
}

function meanScore(scores: readonly (number | null)[]): Estimate {
  return interval95(scores.filter((value): value is number => value !== null));
}

function partsOf(parts: HeldOutScores["parts"], index: number): Pick<AnswerRow, "judged_parts"> {
  const own = Object.entries(parts).map(([name, list]) => [name, list[index] ?? null] as const);
  return own.length === 0 ? {} : { judged_parts: Object.fromEntries(own) };
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

interface Side {
  scores: readonly (number | null)[];
  answers: readonly Answer[];
}

/** Prompts where one side has no score are left out. */
function winsAgainst(own: Side, base: Side): { plain: Estimate; lengthControlled: Estimate } {
  const both = own.scores.flatMap((value, k) => {
    const other = base.scores[k] ?? null;
    if (value === null || other === null) return [];
    const lengths = [own.answers[k]?.ids.length ?? 0, base.answers[k]?.ids.length ?? 0] as const;
    return [{ value, other, lengths }];
  });
  const values = both.map(({ value }) => value);
  const others = both.map(({ other }) => other);
  const lengths = (side: 0 | 1) => both.map((one) => one.lengths[side]);
  const estimate = ({ rate, low, high, count }: WinRate): Estimate => ({ mean: rate, low, high, count });
  return {
    plain: estimate(winRate(values, others)),
    lengthControlled: estimate(lengthControlledWinRate(values, others, lengths(0), lengths(1))),
  };
}

async function refereeScores(
  context: RunContext,
  plan: EvaluationPlan,
  tasks: readonly Task[],
  answers: readonly Answer[],
  name: string,
): Promise<HeldOutScores> {
  const distinct = await distinctResponses(tasks, oneEach(answers));
  const { scores, parts, audit } = await judgeStage(context, {
    judge: plan.referee,
    responses: distinct.responses,
    judgements: context.settings.evaluation.judgements,
    label: `held-out answers of ${name}`,
    // It only measures: where it is of no use, the measure is worth nothing, and the run is what it would be without.
    stopWhenCollapsed: judgesAllAlready(context, plan, tasks, name),
    position: plan.position,
  });
  const collapse = collapsed(audit, context.settings.judge.limits);
  if (collapse !== null) {
    const measured = `held-out answers of ${name}: their scores say nothing`;
    noteFinding(context, `The judge ${plan.referee.name} cannot tell the ${measured} (${collapse.counts}).`);
  }
  const byPrompt = (list: readonly (number | null)[]) =>
    answers.map(({ sample }, task) => {
      const response = distinct.indexOf(task, sample);
      return response === null ? null : (list[response] ?? null);
    });
  return {
    scores: byPrompt(scores),
    parts: Object.fromEntries(Object.entries(parts).map(([part, list]) => [part, byPrompt(list)])),
  };
}

/** Whether this stage is the one by which M0 has shown that it can judge, at the same limits. */
function judgesAllAlready(
  { settings }: RunContext,
  { referee, first }: EvaluationPlan,
  tasks: readonly Task[],
  name: string,
): boolean {
  return referee.hash === first.hash && name === first.name && settings.evaluation.judgedPrompts >= tasks.length;
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
