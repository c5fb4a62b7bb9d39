import { mean } from "simple-statistics";
import { aggregate } from "./aggregate.ts";
import type { ScoreFailure } from "./parse-score.ts";

/** One judgement, as the audit needs it. */
export interface AuditedJudgement {
  /** Prompt that was answered: candidates of one prompt are compared with each other. */
  prompt: string;
  /** Response that was judged. */
  response: string;
  score: number | null;
  failure?: ScoreFailure;
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

/** What a set of judgements says about the judge. */
export function auditJudgements(rows: Iterable<AuditedJudgement>, scale: ScoreScale = rubricScale): JudgementAudit {
  const scores: number[] = [];
  const failuresByReason: Partial<Record<ScoreFailure, number>> = {};
  const byPrompt = new Map<string, Map<string, number[]>>();
  let judgements = 0;
  for (const row of rows) {
    judgements++;
    if (row.score === null) {
      const reason = row.failure ?? "no-score";
      failuresByReason[reason] = (failuresByReason[reason] ?? 0) + 1;
      continue;
    }
    scores.push(row.score);
    const responses = byPrompt.get(row.prompt) ?? new Map<string, number[]>();
    byPrompt.set(row.prompt, responses);
    const list = responses.get(row.response);
    if (list === undefined) responses.set(row.response, [row.score]);
    else list.push(row.score);
  }
  const failures = judgements - scores.length;
  const ties = countTies(byPrompt);
  return {
    scale,
    judgements,
    failures,
    failureRate: judgements === 0 ? 0 : failures / judgements,
    failuresByReason,
    mean: scores.length === 0 ? null : mean(scores),
    variance: populationVariance(scores),
    noise: judgeNoise(byPrompt),
    histogram: histogram(scores, scale),
    equalShare: largestShare(scores),
    prompts: ties.prompts,
    tieRate: ties.prompts === 0 ? null : ties.tied / ties.prompts,
  };
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

function populationVariance(values: readonly number[]): number | null {
  if (values.length === 0) return null;
  const center = mean(values as number[]);
  return mean(values.map((value) => (value - center) ** 2));
}

function judgeNoise(byPrompt: Map<string, Map<string, number[]>>): number | null {
  const variances: number[] = [];
  for (const responses of byPrompt.values()) {
    for (const scores of responses.values()) {
      if (scores.length > 1) variances.push(populationVariance(scores) as number);
    }
  }
  return variances.length === 0 ? null : mean(variances);
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

function histogram(scores: readonly number[], { min, max }: ScoreScale): number[] {
  const whole = Number.isInteger(min) && max - min >= 2 && max - min <= 10;
  const counts = new Array<number>(whole ? Math.floor(max - min) + 1 : 11).fill(0);
  const width = whole ? 1 : (max - min) / 10;
  for (const score of scores) {
    const bin = Math.min(counts.length - 1, Math.max(0, Math.round((score - min) / width)));
    counts[bin] = (counts[bin] as number) + 1;
  }
  return counts;
}

function largestShare(scores: readonly number[]): number | null {
  if (scores.length === 0) return null;
  const counts = new Map<number, number>();
  for (const score of scores) counts.set(score, (counts.get(score) ?? 0) + 1);
  return Math.max(...counts.values()) / scores.length;
}

function countTies(byPrompt: Map<string, Map<string, number[]>>): { prompts: number; tied: number } {
  let prompts = 0;
  let tied = 0;
  for (const responses of byPrompt.values()) {
    if (responses.size < 2) continue;
    prompts++;
    const means = [...responses.values()].map((scores) => aggregate(scores, "mean"));
    if (means.every((value) => value === means[0])) tied++;
  }
  return { prompts, tied };
}
