import { aggregate } from "./aggregate.ts";
import type { ScoreFailure } from "./parse-score.ts";

/** What a judgement came to: its score, or why it has none. */
export type Verdict = number | ScoreFailure | null;

/** The judgements of one response, as the audit needs them. */
export interface AuditedResponse {
  /** Prompt that was answered: responses to one prompt are compared with each other. */
  prompt: string;
  verdicts: readonly Verdict[];
}

/** The score of a verdict that has one. */
export function scoreOf(verdict: Verdict): number | null {
  return typeof verdict === "number" ? verdict : null;
}

/** Lowest and highest score that a judge is made to give. A judge of one's own may go beyond. */
export interface ScoreScale {
  min: number;
  max: number;
}

export const rubricScale: ScoreScale = { min: 0, max: 5 };

export interface JudgementAudit {
  scale: ScoreScale;
  judgements: number;
  /** Judgements without a score, retries included: each attempt counts. */
  failures: number;
  failureRate: number;
  failuresByReason: Partial<Record<ScoreFailure, number>>;
  /** Of the parsed scores; null when there are none. */
  mean: number | null;
  /** Population variance of the parsed scores. */
  variance: number | null;
  /** Mean variance between the judgements of one response: the judge's noise. */
  noise: number | null;
  /** Parsed scores by the nearest of evenly spaced ones from min to max: the whole ones on a short scale, else eleven. */
  histogram: number[];
  /** Share of the most frequent score among the parsed ones. */
  equalShare: number | null;
  /** Prompts with at least two scored responses. */
  prompts: number;
  /** Share of those whose responses all have the same mean score: they cannot form a pair. */
  tieRate: number | null;
}

/** What the judgements of all responses say about the judge. They are read once, and none of them is kept. */
export function auditJudgements(responses: Iterable<AuditedResponse>, scale: ScoreScale = rubricScale): JudgementAudit {
  const audit = new RunningAudit(scale);
  for (const response of responses) audit.add(response);
  return audit.result();
}

/** An audit that is told response after response. */
export class RunningAudit {
  #judgements = 0;
  readonly #failuresByReason: Partial<Record<ScoreFailure, number>> = {};
  readonly #scores = new Moments();
  readonly #noise = new Moments();
  readonly #counts = new Map<number, number>();
  readonly #prompts = new Map<string, PromptScores>();

  constructor(readonly scale: ScoreScale = rubricScale) {}

  add({ prompt, verdicts }: AuditedResponse): void {
    const own = new Moments();
    for (const verdict of verdicts) {
      this.#judgements++;
      const score = scoreOf(verdict);
      if (score === null) {
        const reason = typeof verdict === "string" ? verdict : "no-score";
        this.#failuresByReason[reason] = (this.#failuresByReason[reason] ?? 0) + 1;
        continue;
      }
      own.add(score);
      this.#scores.add(score);
      this.#counts.set(score, (this.#counts.get(score) ?? 0) + 1);
    }
    if (own.count > 1) this.#noise.add(own.variance as number);
    const score = aggregate(verdicts.map(scoreOf));
    if (score === null) return;
    const known = this.#prompts.get(prompt);
    if (known === undefined) {
      this.#prompts.set(prompt, { first: score, responses: 1, tied: true });
      return;
    }
    known.responses++;
    known.tied &&= score === known.first;
  }

  result(): JudgementAudit {
    const failures = this.#judgements - this.#scores.count;
    const compared = [...this.#prompts.values()].filter(({ responses }) => responses > 1);
    return {
      scale: this.scale,
      judgements: this.#judgements,
      failures,
      failureRate: this.#judgements === 0 ? 0 : failures / this.#judgements,
      failuresByReason: this.#failuresByReason,
      mean: this.#scores.mean,
      variance: this.#scores.variance,
      noise: this.#noise.mean,
      histogram: histogram(this.#counts, this.scale),
      equalShare: this.#scores.count === 0 ? null : largest(this.#counts.values()) / this.#scores.count,
      prompts: compared.length,
      tieRate: compared.length === 0 ? null : compared.filter(({ tied }) => tied).length / compared.length,
    };
  }
}

/** The mean scores of a prompt's responses, as far as ties need them. */
interface PromptScores {
  first: number;
  responses: number;
  /** Whether all are equal to the first. */
  tied: boolean;
}

/** Mean and population variance of numbers that are not kept (Welford 1962). */
class Moments {
  count = 0;
  #mean = 0;
  #squares = 0;

  add(value: number): void {
    this.count++;
    const before = value - this.#mean;
    this.#mean += before / this.count;
    this.#squares += before * (value - this.#mean);
  }

  get mean(): number | null {
    return this.count === 0 ? null : this.#mean;
  }

  get variance(): number | null {
    return this.count === 0 ? null : this.#squares / this.count;
  }
}

/** When judgements are too poor to make pairs of. Each limit is the last value that still passes. */
export interface CollapseLimits {
  /** Below this many judgements nothing is concluded from variance or ties. */
  minJudgements: number;
  maxFailureRate: number;
  /** On a scale from 0 to 5; a judge's own is stretched to it. */
  minVariance: number;
  maxEqualShare: number;
  maxTieRate: number;
}

export const defaultCollapseLimits: CollapseLimits = {
  minJudgements: 20,
  maxFailureRate: 0.5,
  minVariance: 0.01,
  maxEqualShare: 0.98,
  maxTieRate: 0.95,
};

export interface Collapse {
  reason: "unparsed" | "constant" | "ties";
  /** One sentence with the counts. */
  counts: string;
  remedy: string;
}

/** Why a run must not go on with such a judge, or null. */
export function collapsed(audit: JudgementAudit, limits: Partial<CollapseLimits> = {}): Collapse | null {
  const { minJudgements, maxFailureRate, minVariance, maxEqualShare, maxTieRate } = {
    ...defaultCollapseLimits,
    ...limits,
  };
  const parsed = audit.judgements - audit.failures;
  if (audit.judgements > 0 && (parsed === 0 || audit.failureRate > maxFailureRate)) {
    const reasons = Object.entries(audit.failuresByReason).map(([reason, count]) => `${reason} ${count}`);
    const crowded = 2 * (audit.failuresByReason["no-room"] ?? 0) > audit.failures;
    return {
      reason: "unparsed",
      counts: `${audit.failures} of ${audit.judgements} judgements gave no score (${reasons.join(", ")})`,
      remedy: crowded
        ? "The judge's context does not hold its question: shorten prompts, answers or the question (judge.template), ask for shorter judgements, or name a judge with a longer context."
        : "Read the scores from the model's probabilities instead (--judge expected), train it on graded examples (EFT) first, give it more tokens, or name another judge.",
    };
  }
  if (parsed < minJudgements) return null;
  const shares = `scores ${histogramScores(audit).map(shown).join(", ")} were given ${audit.histogram.join(", ")} times`;
  const stretch = (rubricScale.max - rubricScale.min) / (audit.scale.max - audit.scale.min);
  if ((audit.variance ?? 0) * stretch ** 2 < minVariance || (audit.equalShare ?? 1) > maxEqualShare) {
    return {
      reason: "constant",
      counts: `of ${parsed} scores ${percent(audit.equalShare ?? 1)} are the same, variance ${(audit.variance ?? 0).toFixed(4)}; ${shares}`,
      remedy: "The judge no longer tells answers apart: add graded examples (EFT replay) or let a frozen model judge.",
    };
  }
  if (audit.tieRate !== null && audit.tieRate > maxTieRate) {
    return {
      reason: "ties",
      counts: `at ${percent(audit.tieRate)} of ${audit.prompts} prompts all answers score the same; ${shares}`,
      remedy: "Sample more judgements or at a higher temperature, or use harder prompts: ties make no pairs.",
    };
  }
  return null;
}

function percent(share: number): string {
  return `${(100 * share).toFixed(1)} %`;
}

/** The scores that the histogram counts, lowest first. */
export function histogramScores(audit: Pick<JudgementAudit, "scale" | "histogram">): number[] {
  const { min, max } = audit.scale;
  const last = audit.histogram.length - 1;
  return audit.histogram.map((_, bin) => min + (bin * (max - min)) / last);
}

function shown(score: number): string {
  return `${Number(score.toFixed(2))}`;
}

function histogram(scores: ReadonlyMap<number, number>, { min, max }: ScoreScale): number[] {
  const whole = Number.isInteger(min) && max - min >= 2 && max - min <= 10;
  const counts = new Array<number>(whole ? Math.floor(max - min) + 1 : 11).fill(0);
  const width = whole ? 1 : (max - min) / 10;
  for (const [score, times] of scores) {
    const bin = Math.min(counts.length - 1, Math.max(0, Math.round((score - min) / width)));
    counts[bin] = (counts[bin] as number) + times;
  }
  return counts;
}

function largest(counts: Iterable<number>): number {
  let most = 0;
  for (const count of counts) most = Math.max(most, count);
  return most;
}
