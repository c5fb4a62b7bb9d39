import type { Judged } from "@tempora/preferences";
import { type Conversation, type Tokenizer, templateColumns } from "@tempora/text";
import { judgementColumns, type Response } from "../judges/judge.ts";
import type { ModelRef } from "../models/model-ref.ts";
import type { CandidateRow, IterationResult, JudgementRow, LedgerEntry, PoolRole } from "../results/results.ts";
import type { Settings } from "../settings/settings.ts";
import { asConversation } from "../sources/conversation.ts";
import type { Task } from "../sources/source.ts";
import { type Answer, type Answers, answerStage } from "../stages/answer.ts";
import type { Position, RunContext } from "../stages/context.ts";
import { type JudgeOutcome, judgeStage } from "../stages/judge.ts";

/** A judged answer, as the selection takes it and the files for people hold it. */
export interface Candidate extends Judged {
  promptIds: readonly number[];
  /** The prompt's variables of the chat template. */
  variables: Readonly<Record<string, unknown>>;
  row: CandidateRow;
}

/** Judged answers of one model to the prompts of an iteration. */
export interface Pool {
  role: PoolRole;
  model: string;
  /** The candidates of task after task, read from the store as they are asked for. */
  byTask(): AsyncGenerator<Candidate[]>;
  judgements(): AsyncGenerator<JudgementRow>;
  audit: IterationResult["audits"][number];
  ledger: LedgerEntry[];
}

export interface PoolPlan {
  role: PoolRole;
  model: ModelRef;
  judge: ModelRef;
  tasks: readonly Task[];
  position: Position;
  /** The model's answers, where they were sampled with those of another. */
  answers?: Answers | undefined;
}

/** Samples and judges one pool. An empty answer is left unjudged: it can neither be chosen nor rejected. */
export async function makePool(context: RunContext, plan: PoolPlan): Promise<Pool> {
  const { model, tasks, position, judge, role } = plan;
  const { settings } = context;
  const answers = plan.answers ?? (await answerStage(context, { ...candidatesPlan(settings, tasks, position), model }));
  const label = `candidates of ${model.name}`;
  const distinct = await distinctResponses(tasks, answers);
  const outcome = await judgeStage(context, {
    judge,
    responses: distinct.responses,
    judgements: settings.judge.judgements,
    label,
    stopWhenCollapsed: true,
    position,
  });
  const { tokenizer } = await context.host.open(model);
  const entry = (stage: "generate" | "judge", totals: JudgeOutcome["totals"]): LedgerEntry => ({
    iteration: position.iteration,
    stage,
    label,
    ...totals,
  });
  return {
    role,
    model: model.name,
    byTask: () => candidates(context, plan, { answers, tokenizer, scoreOf: scores(distinct, outcome.scores) }),
    judgements: () => judgementRows(outcome, distinct, model.name),
    audit: { ...outcome.audit, role, model: model.name },
    ledger: [entry("generate", answers.totals), entry("judge", outcome.totals)],
  };
}

/** What an iteration asks of each of its models. */
export function candidatesPlan(settings: Settings, tasks: readonly Task[], position: Position) {
  const { candidates: samples, sampling } = settings;
  return { tasks, samples, sampling, purpose: "candidates" as const, position };
}

interface Judgements {
  answers: Answers;
  tokenizer: Tokenizer;
  scoreOf(task: number, sample: number): number | null;
}

async function* candidates(
  context: RunContext,
  { model, tasks, role }: PoolPlan,
  { answers, tokenizer, scoreOf }: Judgements,
): AsyncGenerator<Candidate[]> {
  let index = 0;
  for await (const { promptIds, answers: own } of answers.byTask()) {
    const task = tasks[index++] as Task;
    const prompt = asConversation(task.prompt, tokenizer);
    yield own.map((answer): Candidate => {
      const score = scoreOf(answer.task, answer.sample);
      const { text, ids, finishReason } = answer;
      const row = {
        ...candidateRow(task.id, prompt, answer, model.name),
        ...templateColumns(task.variables),
        role,
        score,
        true_score: context.source.trueScore?.(task, text) ?? null,
      };
      return {
        promptIds,
        variables: task.variables ?? {},
        row,
        text,
        score,
        length: ids.length,
        truncated: finishReason === "length",
      };
    });
  }
}

function candidateRow(
  promptId: string,
  prompt: Conversation,
  answer: Answer,
  model: string,
): Omit<CandidateRow, "role" | "score" | "true_score"> {
  return {
    id: candidateId(model, answer.task, answer.sample),
    prompt_id: promptId,
    prompt,
    model,
    sample: answer.sample,
    text: answer.text,
    ids: answer.ids,
    tokens: answer.ids.length,
    log_prob: answer.logProb,
    finish_reason: answer.finishReason,
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
  indexOf(task: number, sample: number): number | null;
}

/** An answer to a task, as a judge is given it. It refers to its task: of a hundred thousand prompts there are a million. */
class AnswerToTask implements Response {
  constructor(
    readonly task: Task,
    readonly text: string,
  ) {}

  get promptId(): string {
    return this.task.id;
  }

  get prompt(): Conversation {
    return this.task.prompt;
  }

  get promptText(): string {
    return this.task.text;
  }

  get variables(): Response["variables"] {
    return this.task.variables;
  }

  get columns(): Response["columns"] {
    return this.task.columns;
  }

  get where(): Response["where"] {
    return this.task.where;
  }
}

export function responseTo(task: Task, text: string): Response {
  return new AnswerToTask(task, text);
}

/** Equal answers to a prompt are one response: they are judged once and share the score. */
export async function distinctResponses(
  tasks: readonly Task[],
  answers: { byTask(): AsyncIterable<{ answers: readonly Answer[] }> | Iterable<{ answers: readonly Answer[] }> },
): Promise<DistinctResponses> {
  const responses: Response[] = [];
  const first: DistinctResponses["first"] = [];
  const indices: (number | null)[][] = [];
  for await (const { answers: own } of answers.byTask()) {
    const asked = tasks[indices.length] as Task;
    const byText = new Map<string, number>();
    const list = own.map(({ task, sample, text }) => {
      if (text.trim() === "") return null;
      const known = byText.get(text);
      if (known !== undefined) return known;
      byText.set(text, responses.length);
      first.push({ task, sample });
      return responses.push(responseTo(asked, text)) - 1;
    });
    indices.push(list);
  }
  return { responses, first, indexOf: (task, sample) => indices[task]?.[sample] ?? null };
}

function scores(distinct: DistinctResponses, list: readonly (number | null)[]): Judgements["scoreOf"] {
  return (task, sample) => {
    const response = distinct.indexOf(task, sample);
    return response === null ? null : (list[response] ?? null);
  };
}

async function* judgementRows(
  outcome: JudgeOutcome,
  distinct: DistinctResponses,
  model: string,
): AsyncGenerator<JudgementRow> {
  for await (const judgement of outcome.judgements()) {
    const { response } = judgement;
    const first = distinct.first[response] as { task: number; sample: number };
    yield {
      prompt_id: (distinct.responses[response] as Response).promptId,
      candidate_id: candidateId(model, first.task, first.sample),
      judge: outcome.judge,
      ...judgementColumns(judgement),
    };
  }
}
