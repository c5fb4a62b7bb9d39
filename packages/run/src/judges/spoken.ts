import { type CollapseLimits, type ParsedScore, parseScore, type ScoreFailure } from "@tempora/preferences";
import { RowLog, type SealedRows } from "../store/row-log.ts";
import { type Judge, type Judgement, type JudgeWork, judgementLog, type Response } from "./judge.ts";
import { auditedRow, refuseCollapsed } from "./verdicts.ts";

/** A response that an attempt judges. */
export interface Asked {
  response: number;
  attempt: number;
  /** Judgements that it lacks. */
  samples: number;
  /** Numbers of those that an earlier process made: they need not be spoken again. */
  have: ReadonlySet<number>;
}

export interface Spoken {
  /** Index into what was asked. */
  asked: number;
  sample: number;
  text: string;
  tokens: number;
  /** False where it was cut off. */
  finished: boolean;
  /** Its context does not hold the question: there is no judgement, and asking again gives none. */
  noRoom?: boolean;
  promptTokens?: number;
}

/** Someone who judges in words: a model of the run, or one behind an endpoint. */
export interface Speaker {
  /** Whether there is room for a judgement behind the response. */
  fits(response: number): boolean;
  /** Told all that an attempt asks before any of it is spoken. */
  onAttempt?(asked: readonly Asked[]): void;
  /** The judgements, in whatever order they end. */
  speak(asked: readonly Asked[]): AsyncIterable<Spoken>;
}

export interface SpokenOptions {
  judgements: number;
  retries: number;
  maxScore: number;
}

/** Responses that are judged first, to see whether the judge judges at all. */
const probeResponses = 32;

/** A judgement without its text: what the attempts that follow need to know of it. Equal ones are one object. */
type Outcome = Readonly<Pick<Judgement, "attempt" | "sample" | "score" | "failure">>;

/**
 * Judgements in words, parsed; those that do not parse are asked for again, up to the limit. A judge whose first
 * judgements nearly all fail, or whose first attempt has collapsed, is not worth the rest.
 */
export class SpokenJudging {
  readonly #byResponse: Outcome[][];
  readonly #outcomes = new Map<string, Outcome>();
  #parsed = 0;
  #log: RowLog<Judgement> | null = null;

  constructor(
    readonly judge: Pick<Judge, "kind" | "name" | "origin" | "scale">,
    readonly speaker: Speaker,
    readonly responses: readonly Response[],
    readonly options: SpokenOptions,
    readonly work: JudgeWork,
  ) {
    this.#byResponse = responses.map(() => []);
  }

  async run(): Promise<SealedRows> {
    const { folder } = this.work;
    const { name, place } = judgementLog;
    const log = await RowLog.open<Judgement>(folder, name, { place, onEarlier: (row) => this.#take(row) });
    this.#log = log;
    try {
      for (let attempt = 0; attempt <= this.options.retries; attempt++) await this.#attempt(attempt);
      return await log.seal();
    } finally {
      await log.close();
    }
  }

  #take({ response, attempt, sample, score, failure }: Judgement): void {
    const key = `${attempt} ${sample} ${score} ${failure}`;
    const outcome = this.#outcomes.get(key) ?? { attempt, sample, score, failure };
    this.#outcomes.set(key, outcome);
    this.#byResponse[response]?.push(outcome);
    if (score !== null) this.#parsed++;
  }

  async #add(judgement: Judgement): Promise<void> {
    if (await this.#log?.add(judgement)) this.#take(judgement);
  }

  async #attempt(attempt: number): Promise<void> {
    const asked: Asked[] = [];
    for (const [response, list] of this.#byResponse.entries()) {
      if (attempt > 0 && list.some(({ failure }) => failure === "no-room")) continue;
      // Judgements of earlier attempts that parsed need no retry.
      const parsed = list.filter((judgement) => judgement.attempt < attempt && judgement.score !== null).length;
      const samples = this.options.judgements - parsed;
      if (samples <= 0) continue;
      const have = new Set(list.filter((judgement) => judgement.attempt === attempt).map(({ sample }) => sample));
      if (this.speaker.fits(response)) asked.push({ response, attempt, samples, have });
      else await this.#add(noRoom(response));
    }
    this.speaker.onAttempt?.(asked);
    this.work.progress(this.#parsed);
    const { limits } = this.work;
    if (attempt > 0 || limits === null) return this.#speak(asked);
    const probe = asked.filter(({ response }) => response < probeResponses);
    await this.#speak(probe);
    this.#stopHopeless(limits);
    await this.#speak(asked.slice(probe.length));
    this.#refuse(this.#byResponse, limits);
  }

  async #speak(asked: readonly Asked[]): Promise<void> {
    if (asked.length === 0) return;
    const max = this.options.maxScore;
    for await (const { asked: index, sample, text, tokens, finished, noRoom, promptTokens } of this.speaker.speak(
      asked,
    )) {
      const { response, attempt } = asked[index] as Asked;
      const verdict = verdictOf(noRoom ? { failure: "no-room" } : parseScore(text, { max, finished }));
      const read = promptTokens === undefined ? {} : { promptTokens };
      await this.#add({ response, attempt, sample, text, tokens, ...verdict, ...read });
      this.work.progress(this.#parsed);
    }
  }

  #stopHopeless(limits: CollapseLimits): void {
    const judgements = this.#byResponse.slice(0, probeResponses);
    if (judgements.flat().length < limits.minJudgements) return;
    const maxFailureRate = (1 + limits.maxFailureRate) / 2;
    this.#refuse(judgements, { ...limits, maxFailureRate, minJudgements: Number.POSITIVE_INFINITY });
  }

  /** By the judgements of the first responses, or of all. */
  #refuse(judgements: readonly (readonly Outcome[])[], limits: CollapseLimits): void {
    refuseCollapsed(this.judge, auditedRows(this.responses, judgements), limits);
  }
}

/** One by one: of two million judgements there need be no second list. */
function* auditedRows(responses: readonly Response[], judgements: readonly (readonly Outcome[])[]) {
  for (const [response, list] of judgements.entries()) {
    for (const outcome of list) yield auditedRow(responses, { response, ...outcome });
  }
}

function verdictOf(parsed: ParsedScore): { score: number | null; failure: ScoreFailure | null } {
  return "score" in parsed ? { score: parsed.score, failure: null } : { score: null, failure: parsed.failure };
}

/** The judge's prompt fills the context: no judgement can be finished. */
export function noRoom(response: number): Judgement {
  return { response, attempt: 0, sample: 0, text: "", tokens: 0, score: null, failure: "no-room" };
}
