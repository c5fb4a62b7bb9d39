import { type Json, TemporaError } from "@tempora/errors";
import type { ScoreScale } from "@tempora/preferences";
import { noTokens } from "../results/ledger.ts";
import { requireOtherNames } from "../settings/judge-columns.ts";
import type { JudgeBatch, JudgeFunction } from "../settings/judge-settings.ts";
import { RowLog } from "../store/row-log.ts";
import { type Judge, type JudgedRows, type Judgement, type JudgeWork, judgementLog, type Response } from "./judge.ts";

/** Responses given to a function at once. */
const batchSize = 64;

/** A TypeScript function as judge: a verifier, a length term, anything that a program can check. */
export function functionJudge(options: JudgeFunction): Judge {
  const { name, range, version } = options;
  const [min, max] = range;
  const scale: ScoreScale = { min, max };
  if (version === undefined) {
    throw new TemporaError(`The judge ${name} names no version, and its source is unknown`, {
      where: { field: "judge.functions.version" },
      remedy: 'Give it a version, as version: "1", and another one whenever it changes.',
    });
  }
  return {
    kind: "function",
    name,
    origin: `judge.functions, ${name}`,
    identity: { kind: "function", name, version, range } satisfies Json,
    scale,
    perResponse: 1,
    deterministic: true,
    readsColumns: true,
    question: null,
    judge: (responses, work) => judgeByFunction(options, responses, work),
  };
}

async function judgeByFunction(
  options: JudgeFunction,
  responses: readonly Response[],
  work: JudgeWork,
): Promise<JudgedRows> {
  const log = await RowLog.open<Judgement>(work.folder, judgementLog.name, { place: judgementLog.place });
  try {
    const columns = columnNames(responses);
    work.progress(log.count);
    for (let start = 0; start < responses.length; start += batchSize) {
      work.signal?.throwIfAborted();
      const batch = responses.slice(start, start + batchSize).map((response, k) => ({ response, number: start + k }));
      const missing = batch.filter(({ number }) => !log.has(judgementLog.place(judgement(number, null))));
      if (missing.length === 0) continue;
      const asked = missing.map(({ response }) => response);
      const scores = await scoresOf(options, asked, columns, work.signal);
      for (const [k, { number }] of missing.entries()) await log.add(judgement(number, scores[k] ?? null));
      // A function may have been expensive: what it said is kept at once.
      await log.flush();
      work.progress(log.count);
    }
    return { rows: await log.seal(), totals: noTokens() };
  } finally {
    await log.close();
  }
}

function judgement(response: number, score: number | null): Judgement {
  const failure = score === null ? "no-score" : null;
  return { response, attempt: 0, sample: 0, text: "", tokens: 0, score, failure };
}

/** The columns of all rows: one that a row lacks is undefined there. */
function columnNames(responses: readonly Response[]): string[] {
  const names = new Set<string>();
  for (const { columns, where } of responses) {
    requireOtherNames(columns, where);
    for (const name of Object.keys(columns)) names.add(name);
  }
  return [...names];
}

async function scoresOf(
  { name, score }: JudgeFunction,
  responses: readonly Response[],
  columns: readonly string[],
  signal: AbortSignal | undefined,
): Promise<readonly (number | null)[]> {
  const batch: JudgeBatch = {
    prompts: responses.map(({ prompt }) => prompt),
    answers: responses.map(({ text }) => text),
  };
  for (const column of columns) batch[column] = responses.map((response) => response.columns[column]);
  let scores: unknown;
  try {
    scores = await unlessAborted(score(batch), signal);
  } catch (cause) {
    signal?.throwIfAborted();
    if (cause instanceof TemporaError) throw cause;
    const reason = cause instanceof Error ? cause.message.split("\n")[0] : String(cause);
    throw new TemporaError(`The judge ${name} failed on ${placesOf(responses)}: ${reason}`, {
      where: responses[0]?.where ?? {},
      remedy: "Correct the function, or let it return null for an answer that it cannot judge.",
      cause,
    });
  }
  return checkedScores(name, scores, responses);
}

/** The work's own result, or the signal's reason as soon as it is given: what never settles must not hold the run. */
async function unlessAborted<T>(work: T | Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return work;
  const { promise, reject } = Promise.withResolvers<never>();
  const onAbort = () => reject(signal.reason);
  signal.addEventListener("abort", onAbort, { once: true });
  if (signal.aborted) onAbort();
  try {
    return await Promise.race([work, promise]);
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}

function checkedScores(name: string, given: unknown, responses: readonly Response[]): (number | null)[] {
  const scores: unknown = ArrayBuffer.isView(given) ? Array.from(given as Float64Array) : given;
  if (!Array.isArray(scores) || scores.length !== responses.length) {
    const returned = Array.isArray(scores) ? `${scores.length} scores` : typeof scores;
    throw new TemporaError(`The judge ${name} was given ${responses.length} answers and returned ${returned}`, {
      where: { field: "judge.functions" },
      remedy: "Return a list with one number an answer, in their order (null where there is no score).",
    });
  }
  return scores.map((value: unknown, index) => {
    if (value === null || (typeof value === "number" && Number.isFinite(value))) return value;
    const { where, text } = responses[index] as Response;
    const answer = JSON.stringify(text.length > 80 ? `${text.slice(0, 80)}…` : text);
    throw new TemporaError(`The judge ${name} gave ${described(value)} as the score of the answer ${answer}`, {
      where: where ?? {},
      remedy: `Return finite numbers${typeof value === "string" ? ", as by Number(text)" : ""}, or null for an answer that it cannot judge.`,
    });
  });
}

/** "the string \"5\"", "the boolean true", "NaN". */
function described(value: unknown): string {
  if (value === undefined || typeof value === "number") return String(value);
  if (typeof value === "bigint") return `the bigint ${value}n`;
  const text = JSON.stringify(value) ?? String(value);
  return `the ${Array.isArray(value) ? "list" : typeof value} ${text.length > 80 ? `${text.slice(0, 80)}…` : text}`;
}

/** "rows 3 to 41 of prompts.jsonl" */
function placesOf(responses: readonly Response[]): string {
  const rows = responses.flatMap(({ where }) => (where?.row === undefined ? [] : [where.row]));
  const file = responses[0]?.where?.file;
  if (rows.length === 0 || file === undefined) return `${responses.length} answers`;
  const [low, high] = [Math.min(...rows), Math.max(...rows)];
  return low === high ? `row ${low} of ${file}` : `rows ${low} to ${high} of ${file}`;
}
