import { TemporaError } from "@tempora/errors";
import { type PhaseRule, type Role, rolesOf, type SideRule } from "./strategies.ts";

/** What the selection reads of an answer. Whatever else a candidate carries goes through it untouched. */
export interface Judged {
  text: string;
  /** Mean or median of its judgements; null when none parsed: such an answer is never chosen and never rejected. */
  score: number | null;
  /** In tokens; used by length control. */
  length: number;
  /** True when it ended because its length was used up, not by itself. */
  truncated: boolean;
}

export interface SelectionSettings {
  /** A pair is kept only if its scores differ by more than this. 0: any difference. */
  minimumGap?: number;
  /**
   * Length control of Meta-Rewarding (arXiv:2407.19594): the shortest answer scoring within
   * [(1−ρ)·max + ρ·min, max] is chosen, the longest within [min, (1−ρ)·min + ρ·max] is rejected.
   */
  lengthControl?: { rho: number } | null;
  /**
   * Truncated answers are left out of the pools, or kept as they are. An answer without its end teaches not to end;
   * leaving such answers out favours short ones.
   */
  truncated?: "drop" | "keep";
}

export const dropReasons = ["tie", "no-scores", "identical-text", "truncated"] as const;

/** "truncated": what is left without the truncated answers makes no pair, and with them there would be one, or both sides. */
export type DropReason = (typeof dropReasons)[number];

export type Scored<Candidate extends Judged> = Candidate & { score: number };

export interface SelectedPair<Candidate extends Judged> {
  chosen: Scored<Candidate>;
  rejected: Scored<Candidate>;
}

export type Selection<Candidate extends Judged> = SelectedPair<Candidate> | { dropped: DropReason };

export type Pools<Candidate extends Judged> = Partial<Record<Role, readonly Candidate[]>>;

/**
 * The pair that a phase's rule forms from the pools of one prompt, or why there is none. Among equal scores the first
 * of the pool wins, so the order of the samples decides and the result is the same in every run.
 */
export function selectPair<Candidate extends Judged>(
  rule: PhaseRule,
  pools: Pools<Candidate>,
  settings: SelectionSettings = {},
): Selection<Candidate> {
  const rho = checkedRho(settings);
  const usable = scoredPools(rule, pools);
  const kept = settings.truncated === "keep" ? usable : withoutTruncated(usable);
  const chosen = pickSide(rule.chosen, kept, 1, rho);
  const rejected = pickSide(rule.rejected, kept, -1, rho);
  const differ = (one: { score: number }, other: { score: number }) =>
    one.score - other.score > (settings.minimumGap ?? 0);
  if (chosen === null || rejected === null || !differ(chosen, rejected)) {
    const [best, worst] = [pickSide(rule.chosen, usable, 1, rho), pickSide(rule.rejected, usable, -1, rho)];
    if (best === null || worst === null) return { dropped: "no-scores" };
    // One answer is left, or answers of one score: it was the truncated ones that differed.
    return { dropped: chosen === null || rejected === null || differ(best, worst) ? "truncated" : "tie" };
  }
  if (chosen.text === rejected.text) return { dropped: "identical-text" };
  return { chosen, rejected };
}

/** What a selection over many prompts did. */
export interface SelectionCounts {
  pairs: number;
  /** Prompts without a pair, by reason. */
  dropped: Record<DropReason, number>;
  /** Answers in the pools that the rule reads, and how many of them are truncated. */
  answers: number;
  truncated: number;
}

export function noSelection(): SelectionCounts {
  const dropped = Object.fromEntries(dropReasons.map((reason) => [reason, 0])) as Record<DropReason, number>;
  return { pairs: 0, dropped, answers: 0, truncated: 0 };
}

/**
 * The pairs of many prompts, one a prompt at most, in the order of the prompts, which may come one by one. Adds what
 * happened to `counts`.
 */
export async function* selectPairs<Candidate extends Judged, Prompt>(
  rule: PhaseRule,
  prompts:
    | Iterable<{ prompt: Prompt; pools: Pools<Candidate> }>
    | AsyncIterable<{ prompt: Prompt; pools: Pools<Candidate> }>,
  settings: SelectionSettings,
  counts: SelectionCounts,
): AsyncGenerator<SelectedPair<Candidate> & { prompt: Prompt }> {
  for await (const { prompt, pools } of prompts) {
    // A pool that stands for two roles, as M0's in the first iteration, is one.
    for (const pool of new Set(rolesOf(rule).map((role) => pools[role] ?? []))) {
      counts.answers += pool.length;
      counts.truncated += pool.filter(({ truncated }) => truncated).length;
    }
    const selection = selectPair(rule, pools, settings);
    if ("dropped" in selection) {
      counts.dropped[selection.dropped]++;
      continue;
    }
    counts.pairs++;
    yield { prompt, ...selection };
  }
}

/** Above this share of truncated answers, leaving them out visibly favours short ones. */
export const manyTruncated = 0.2;

/** What to tell a user whose pairs leave out many truncated answers; null where there are few. */
export function truncationWarning(counts: SelectionCounts, settings: SelectionSettings): string | null {
  const { answers, truncated } = counts;
  if (settings.truncated === "keep" || !(truncated > manyTruncated * answers)) return null;
  const share = Math.round((100 * truncated) / answers);
  return `${truncated} of ${answers} answers (${share} %) were cut off by length and left out of the pairs, which favours short answers: allow more new tokens, or keep them`;
}

function checkedRho(settings: SelectionSettings): number | null {
  const rho = settings.lengthControl?.rho;
  if (rho === undefined) return null;
  if (!(rho >= 0 && rho <= 1)) {
    throw new TemporaError(`The length control's rho is ${rho}`, {
      where: { field: "lengthControl.rho" },
      remedy: "Give a number from 0 (only the best scores) to 1 (every score).",
    });
  }
  return rho;
}

type ScoredPools<Candidate extends Judged> = ReadonlyMap<Role, readonly Scored<Candidate>[]>;

function scoredPools<Candidate extends Judged>(rule: PhaseRule, pools: Pools<Candidate>): ScoredPools<Candidate> {
  return new Map(
    rolesOf(rule).map((role) => {
      const pool = pools[role];
      if (pool === undefined) {
        throw new TemporaError(`The strategy needs answers of the ${role} model, and there are none`, {
          where: { field: role },
          remedy: `Generate and judge candidates of the ${role} model first.`,
        });
      }
      const scored = pool.filter((one): one is Scored<Candidate> => one.score !== null && Number.isFinite(one.score));
      return [role, scored];
    }),
  );
}

function withoutTruncated<Candidate extends Judged>(pools: ScoredPools<Candidate>): ScoredPools<Candidate> {
  return new Map([...pools].map(([role, pool]) => [role, pool.filter(({ truncated }) => !truncated)]));
}

/** `sign` is 1 for the chosen side (highest score) and −1 for the rejected one (lowest). */
function pickSide<Candidate extends Judged>(
  side: SideRule,
  pools: ScoredPools<Candidate>,
  sign: 1 | -1,
  rho: number | null,
): Scored<Candidate> | null {
  const otherwise = pools.get(side.otherwise) ?? [];
  if (side.preferred === side.otherwise) return extreme(otherwise, sign, rho);
  const preferred = pools.get(side.preferred) ?? [];
  const bestPreferred = extreme(preferred, sign, null);
  const bestOtherwise = extreme(otherwise, sign, null);
  // Strict, as in the paper: at equal scores the current model's own answer stays.
  const wins =
    bestPreferred !== null && (bestOtherwise === null || sign * (bestPreferred.score - bestOtherwise.score) > 0);
  return extreme(wins ? preferred : otherwise, sign, rho);
}

function extreme<Candidate extends Judged>(
  pool: readonly Scored<Candidate>[],
  sign: 1 | -1,
  rho: number | null,
): Scored<Candidate> | null {
  const first = pool[0];
  if (first === undefined) return null;
  let best = first;
  let worst = first;
  for (const answer of pool) {
    if (sign * (answer.score - best.score) > 0) best = answer;
    if (sign * (answer.score - worst.score) < 0) worst = answer;
  }
  if (rho === null) return best;
  const edge = (1 - rho) * best.score + rho * worst.score;
  let pick = best;
  for (const answer of pool) {
    const inBand = sign * (answer.score - edge) >= 0;
    if (inBand && sign * (pick.length - answer.length) > 0) pick = answer;
  }
  return pick;
}
