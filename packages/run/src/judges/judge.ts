import { type Json, type Place, TemporaError } from "@tempora/errors";
import type { CollapseLimits, JudgePromptPart, ScoreFailure, ScoreScale } from "@tempora/preferences";
import type { Conversation, Tokenizer } from "@tempora/text";
import type { JudgementColumns, LedgerTotals } from "../results/results.ts";
import type { JudgeKind } from "../settings/judge-settings.ts";
import { ContentHash } from "../store/content-hash.ts";
import { type SealedRows, sealedRows } from "../store/row-log.ts";

/** A response to judge. Responses must differ in prompt or text: equal ones are judged once, by the caller. */
export interface Response {
  promptId: string;
  prompt: Conversation;
  /** What a judge that reads text is shown of the prompt. */
  promptText: string;
  text: string;
  /** The prompt's variables of the chat template. */
  variables?: Readonly<Record<string, unknown>> | undefined;
  /** All other columns of the prompt's row: ground truth, for a judge that can use it. */
  columns: Readonly<Record<string, unknown>>;
  /** The prompt's row, for messages. */
  where?: Place | undefined;
}

/** One judgement, as the log holds it. */
export interface Judgement extends JudgementColumns {
  /** Index into the responses. */
  response: number;
  failure: ScoreFailure | null;
  /** Tokens that the judge generated. */
  tokens: number;
  /** Of a judge behind an endpoint: tokens that it read. */
  promptTokens?: number;
}

/** A judgement as files for people hold it, beside what it judges. */
export function judgementColumns({
  response: _,
  tokens: __,
  promptTokens: ___,
  ...columns
}: Judgement): JudgementColumns {
  return columns;
}

/** What a judge works with. */
export interface JudgeWork {
  /** Holds the judgements' log. What an interrupted attempt left there is gone on with. */
  folder: string;
  signal: AbortSignal | undefined;
  /** Whether judgements that are of no use end the work, and when they count as that; null: never. */
  limits: CollapseLimits | null;
  /** Judgements that have a score. */
  progress(done: number, extra?: Record<string, number>): void;
}

export interface JudgedRows {
  /** Of <folder>/judgements.jsonl, read by `readJudgements`. */
  rows: SealedRows;
  totals: LedgerTotals;
}

/** Gives responses scores. Audit, ledger and store see nothing else of it. */
export interface Judge {
  readonly kind: JudgeKind;
  /** For people: "M0", "bullets + M0". */
  readonly name: string;
  /** Where it comes from, for messages: a model's folder, an endpoint's address. */
  readonly origin: string;
  /** Everything that decides its judgements besides the responses. */
  readonly identity: Json;
  readonly scale: ScoreScale;
  /** Judgements of each response, retries aside. */
  readonly perResponse: number;
  /** True where another judgement of the same response would say the same. */
  readonly deterministic: boolean;
  /** True where the columns of the prompt's row decide the score too. */
  readonly readsColumns: boolean;
  /** What a judge that speaks is asked about a response; null for one that does not speak. */
  readonly question: ((response: Response) => JudgePromptPart[]) | null;
  /**
   * Tokens that judging a response takes of the context, the longest judgement included. Absent where no model of ours
   * reads it.
   */
  contextOf?(response: Response, tokenizer: Tokenizer): number;
  /**
   * Judges every response; an interrupted call is gone on with by the same call again.
   * @throws JudgeCollapsed where the limits say that its judgements are of no use.
   */
  judge(responses: readonly Response[], work: JudgeWork): Promise<JudgedRows>;
}

/** Of what decides the judgements of responses besides the judge. */
export function hashResponses(judge: Judge, responses: readonly Response[]): string {
  const hash = new ContentHash();
  for (const { prompt, promptText, text, variables, columns } of responses) {
    hash
      .text(promptText)
      .text(text)
      .json((variables ?? null) as Json);
    if (judge.readsColumns) hash.json(prompt as unknown as Json).json(columns as Json);
  }
  return hash.digest();
}

/** The judgements of a judge are of no use: it gives no scores, or the same to all. */
export class JudgeCollapsed extends TemporaError {}

const logName = "judgements";
/** More samples of a response, and more attempts, than any setting asks for. */
const most = 10_000;

/** Places of judgements in their log: by response, attempt and sample. */
export const judgementLog = {
  name: logName,
  place: ({ response, attempt, sample }: Judgement) => (response * most + attempt) * most + sample,
};

/** The judgements in order: by response, attempt and sample. */
export function readJudgements(folder: string, rows: SealedRows): AsyncGenerator<Judgement> {
  return sealedRows<Judgement>(folder, logName, rows);
}

/** Judgements in their order, those of a response together. */
export async function* byResponse(
  judgements: AsyncIterable<Judgement>,
): AsyncGenerator<{ response: number; judgements: Judgement[] }> {
  let own: Judgement[] = [];
  for await (const judgement of judgements) {
    const [first] = own;
    if (first !== undefined && first.response !== judgement.response) {
      yield { response: first.response, judgements: own };
      own = [];
    }
    own.push(judgement);
  }
  const [last] = own;
  if (last !== undefined) yield { response: last.response, judgements: own };
}
