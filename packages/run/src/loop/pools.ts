import type { Judged } from "@tempora/preferences";
import { judgementColumns, type Response } from "../judges/judge.ts";
import type { ModelRef } from "../models/model-ref.ts";
import type { CandidateRow, IterationResult, JudgementRow, LedgerEntry, PoolRole } from "../results/results.ts";
import { asConversation } from "../sources/conversation.ts";
import type { Task } from "../sources/source.ts";
import { type Answer, answerStage } from "../stages/answer.ts";
import type { Position, RunContext } from "../stages/context.ts";
import { type JudgeOutcome, judgeStage } from "../stages/judge.ts";

/** Judged answers of one model to the prompts of an iteration. */
export interface Pool {
  role: PoolRole;
  model: string;
  candidates: CandidateRow[];
  judgements: JudgementRow[];
  /** [tasks] what the selection works on. */
  judged: Judged[][];
  audit: IterationResult["audits"][number];
  ledger: LedgerEntry[];
}

export interface PoolPlan {
  role: PoolRole;
  model: ModelRef;
  judge: ModelRef;
  tasks: readonly Task[];
  position: Position;
}

/** Samples and judges one pool. An empty answer is left unjudged: it can neither be chosen nor rejected. */
export async function makePool(context: RunContext, plan: PoolPlan): Promise<Pool> {
  const { model, tasks, position, judge, role } = plan;
  const { settings } = context;
  const answers = await answerStage(context, {
    model,
    tasks,
    samples: settings.candidates,
    sampling: settings.sampling,
    purpose: "candidates",
    position,
  });
  const label = `candidates of ${model.name}`;
  const distinct = distinctResponses(tasks, answers.byTask);
  const outcome = await judgeStage(context, {
    judge,
    responses: distinct.responses,
    judgements: settings.judge.judgements,
    label,
    stopWhenCollapsed: true,
    position,
  });
  const { tokenizer } = await context.host.open(model);
  const candidates = answers.byTask.map((list, task) =>
    list.map((answer): CandidateRow => {
      const { id, prompt } = tasks[task] as Task;
      const response = distinct.indexOf(task, answer.text);
      return {
        id: candidateId(model.name, task, answer.sample),
        prompt_id: id,
        prompt: asConversation(prompt, tokenizer),
        role,
        model: model.name,
        sample: answer.sample,
        text: answer.text,
        tokens: answer.tokens,
        log_prob: answer.logProb,
        finish_reason: answer.finishReason,
        score: response === null ? null : (outcome.scores[response] ?? null),
        true_score: context.source.trueScore?.(tasks[task] as Task, answer.text) ?? null,
      };
    }),
  );
  const entry = (stage: "generate" | "judge", totals: JudgeOutcome["totals"]): LedgerEntry => ({
    iteration: position.iteration,
    stage,
    label,
    ...totals,
  });
  return {
    role,
    model: model.name,
    candidates: candidates.flat(),
    judgements: await judgementRows(outcome, distinct, model.name),
    judged: candidates.map((list) =>
      list.map(({ id, text, score, tokens }) => ({ id, role: model.name, text, score, length: tokens })),
    ),
    audit: { ...outcome.audit, role, model: model.name },
    ledger: [entry("generate", answers.totals), entry("judge", outcome.totals)],
  };
}

function candidateId(model: string, task: number, sample: number): string {
  return `${model}-${task}-${sample}`;
}

interface DistinctResponses {
  responses: Response[];
  /** Task and sample of the first answer with each response's text. */
  first: { task: number; sample: number }[];
  /** Index of the response that an answer is an instance of; null for an empty one. */
  indexOf(task: number, text: string): number | null;
}

/** Equal answers to a prompt are one response: they are judged once and share the score. */
export function distinctResponses(tasks: readonly Task[], byTask: readonly (readonly Answer[])[]): DistinctResponses {
  const responses: Response[] = [];
  const first: DistinctResponses["first"] = [];
  const indices = byTask.map(() => new Map<string, number>());
  byTask.forEach((answers, task) => {
    const { id, text: promptText, prompt, columns, where } = tasks[task] as Task;
    for (const { text, sample } of answers) {
      if (text.trim() === "" || indices[task]?.has(text)) continue;
      indices[task]?.set(text, responses.length);
      responses.push({ promptId: id, prompt, promptText, text, columns, ...(where === undefined ? {} : { where }) });
      first.push({ task, sample });
    }
  });
  return { responses, first, indexOf: (task, text) => indices[task]?.get(text) ?? null };
}

async function judgementRows(
  outcome: JudgeOutcome,
  distinct: DistinctResponses,
  model: string,
): Promise<JudgementRow[]> {
  const rows: JudgementRow[] = [];
  for await (const judgement of outcome.judgements()) {
    const { response } = judgement;
    const first = distinct.first[response] as { task: number; sample: number };
    rows.push({
      prompt_id: (distinct.responses[response] as Response).promptId,
      candidate_id: candidateId(model, first.task, first.sample),
      judge: outcome.judge,
      ...judgementColumns(judgement),
    });
  }
  return rows;
}
