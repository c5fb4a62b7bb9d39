import { type CollapseLimits, type ParsedScore, parseScore, type ScoreFailure } from "@tempora/preferences";
import { RowLog, type SealedRows } from "../store/row-log.ts";
import { type Judge, type Judgement, type JudgeWork, judgementLog, type Response } from "./judge.ts";
import { refuseCollapsed } from "./verdicts.ts";

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
  response: number;
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
  /** The judgements, in whatever order they end. What is asked is read as it is needed: of it all there may be millions. */
  speak(asked: Iterable<Asked>): AsyncIterable<Spoken>;
}

export interface SpokenOptions {
  judgements: number;
  retries: number;
  maxScore: number;
}

/** Responses that are judged first, to see whether the judge judges at all. */
const probeResponses = 32;

const none: ReadonlySet<number> = new Set();

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
    this.work.progress(this.#parsed);
    const { limits } = this.work;
    const all = this.responses.length;
    const probes = attempt > 0 || limits === null ? 0 : Math.min(probeResponses, all);
    if (probes > 0) {
      await this.#speak(attempt, 0, probes);
      this.#stopHopeless(limits as CollapseLimits);
    }
    await this.#speak(attempt, probes, all);
    if (attempt === 0 && limits !== null) this.#refuse(all, limits);
  }

  /** What an attempt asks of the responses [first, end). Those that the context has no room for go to `tooLong`. */
  *#asked(attempt: number, first: number, end: number, tooLong: number[]): Generator<Asked> {
    for (let response = first; response < end; response++) {
      const list = this.#byResponse[response] as Outcome[];
      if (attempt > 0 && list.some(({ failure }) => failure === "no-room")) continue;
      // Judgements of earlier attempts that parsed need no retry.
      const parsed = list.filter((judgement) => judgement.attempt < attempt && judgement.score !== null).length;
      const samples = this.options.judgements - parsed;
      if (samples <= 0) continue;
      const own = list.filter((judgement) => judgement.attempt === attempt);
      const have = own.length === 0 ? none : new Set(own.map(({ sample }) => sample));
      if (this.speaker.fits(response)) yield { response, attempt, samples, have };
      else tooLong.push(response);
    }
  }

  async #speak(attempt: number, first: number, end: number): Promise<void> {
    const max = this.options.maxScore;
    const tooLong: number[] = [];
    for await (const spoken of this.speaker.speak(this.#asked(attempt, first, end, tooLong))) {
      const { response, sample, text, tokens, finished, noRoom, promptTokens } = spoken;
      const verdict = verdictOf(noRoom ? { failure: "no-room" } : parseScore(text, { max, finished }));
      const read = promptTokens === undefined ? {} : { promptTokens };
      await this.#add({ response, attempt, sample, text, tokens, ...verdict, ...read });
      this.work.progress(this.#parsed);
    }
    for (const response of tooLong) await this.#add(noRoom(response));
  }

  #stopHopeless(limits: CollapseLimits): void {
    if (this.#byResponse.slice(0, probeResponses).flat().length < limits.minJudgements) return;
    const maxFailureRate = (1 + limits.maxFailureRate) / 2;
    this.#refuse(probeResponses, { ...limits, maxFailureRate, minJudgements: Number.POSITIVE_INFINITY });
  }

  /** By the judgements of the first `count` responses. */
  #refuse(count: number, limits: CollapseLimits): void {
    const lists = this.#byResponse.values().take(count);
    const audited = lists.map((list, response) => ({
      prompt: (this.responses[response] as Response).promptId,
      verdicts: list.map(({ score, failure }) => score ?? failure),
    }));
    refuseCollapsed(this.judge, audited, limits);
  }
}

function verdictOf(parsed: ParsedScore): { score: number | null; failure: ScoreFailure | null } {
  return "score" in parsed ? { score: parsed.score, failure: null } : { score: null, failure: parsed.failure };
}

/** The judge's prompt fills the context: no judgement can be finished. */
export function noRoom(response: number): Judgement {
  return { response, attempt: 0, sample: 0, text: "", tokens: 0, score: null, failure: "no-room" };
}
