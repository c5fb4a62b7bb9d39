import { TemporaError } from "@tempora/errors";
import type { PhaseRule, Role, SideRule } from "./strategies.ts";

/** An answer with its aggregated score. */
export interface Judged {
  id: string;
  /** The model that wrote it, e.g. "M1". */
  role: string;
  text: string;
  /** Mean or median of its judgements; null when none parsed: such an answer is never chosen and never rejected. */
  score: number | null;
  /** In tokens; used by length control. */
  length: number;
}

export interface SelectionSettings {
  /** A pair is kept only if its scores differ by more than this. 0: any difference. */
  minimumGap?: number;
  /**
   * Length control of Meta-Rewarding (arXiv:2407.19594): the shortest answer scoring within
   * [(1−ρ)·max + ρ·min, max] is chosen, the longest within [min, (1−ρ)·min + ρ·max] is rejected.
   */
  lengthControl?: { rho: number } | null;
}

export type DropReason = "tie" | "no-scores" | "identical-text";

export type Selection = { chosen: Judged; rejected: Judged } | { dropped: DropReason };

export type Pools = Partial<Record<Role, readonly Judged[]>>;

interface Scored extends Judged {
  score: number;
}

/**
 * The pair that a phase's rule forms from the pools of one prompt, or why there is none. Among equal scores the first
 * of the pool wins, so the order of the samples decides and the result is the same in every run.
 */
export function selectPair(rule: PhaseRule, pools: Pools, settings: SelectionSettings = {}): Selection {
  const rho = checkedRho(settings);
  const chosen = pickSide(rule.chosen, pools, 1, rho);
  const rejected = pickSide(rule.rejected, pools, -1, rho);
  if (chosen === null || rejected === null) return { dropped: "no-scores" };
  if (!(chosen.score - rejected.score > (settings.minimumGap ?? 0))) return { dropped: "tie" };
  if (chosen.text === rejected.text) return { dropped: "identical-text" };
  return { chosen, rejected };
}

export interface SelectedPair {
  prompt: string;
  chosen: Judged;
  rejected: Judged;
}

export interface PairSelection {
  pairs: SelectedPair[];
  dropped: Record<DropReason, number>;
}

/** One pair a prompt at most, in the order of the prompts, with the counts of what was dropped and why. */
export function selectPairs(
  rule: PhaseRule,
  prompts: Iterable<{ prompt: string; pools: Pools }>,
  settings: SelectionSettings = {},
): PairSelection {
  const result: PairSelection = { pairs: [], dropped: { tie: 0, "no-scores": 0, "identical-text": 0 } };
  for (const { prompt, pools } of prompts) {
    const selection = selectPair(rule, pools, settings);
    if ("dropped" in selection) result.dropped[selection.dropped]++;
    else result.pairs.push({ prompt, ...selection });
  }
  return result;
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

/** `sign` is 1 for the chosen side (highest score) and −1 for the rejected one (lowest). */
function pickSide(side: SideRule, pools: Pools, sign: 1 | -1, rho: number | null): Scored | null {
  const otherwise = scoredPool(pools, side.otherwise);
  if (side.preferred === side.otherwise) return extreme(otherwise, sign, rho);
  const preferred = scoredPool(pools, side.preferred);
  const bestPreferred = extreme(preferred, sign, null);
  const bestOtherwise = extreme(otherwise, sign, null);
  // Strict, as in the paper: at equal scores the current model's own answer stays.
  const wins =
    bestPreferred !== null && (bestOtherwise === null || sign * (bestPreferred.score - bestOtherwise.score) > 0);
  return extreme(wins ? preferred : otherwise, sign, rho);
}

function scoredPool(pools: Pools, role: Role): Scored[] {
  const pool = pools[role];
  if (pool === undefined) {
    throw new TemporaError(`The strategy needs answers of the ${role} model, and there are none`, {
      where: { field: role },
      remedy: `Generate and judge candidates of the ${role} model first.`,
    });
  }
  return pool.filter((answer): answer is Scored => answer.score !== null && Number.isFinite(answer.score));
}

function extreme(pool: readonly Scored[], sign: 1 | -1, rho: number | null): Scored | null {
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
