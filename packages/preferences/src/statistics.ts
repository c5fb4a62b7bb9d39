import { TemporaError } from "@tempora/errors";
import jStat from "jstat";
import { mean as meanOf, sampleStandardDeviation } from "simple-statistics";

/** The arithmetic mean (compensated sum); NaN of nothing. */
export function mean(values: readonly number[]): number {
  return values.length === 0 ? Number.NaN : meanOf(values as number[]);
}

/** An estimate and the ends of its 95 % interval; the ends are null where the data allow none (fewer than two values). */
export interface Interval {
  mean: number;
  low: number | null;
  high: number | null;
  count: number;
}

/** Mean with its 95 % interval by Student's t. */
export function interval95(values: readonly number[]): Interval {
  const count = values.length;
  const center = mean(values);
  if (count < 2) return { mean: center, low: null, high: null, count };
  const error = sampleStandardDeviation(values as number[]) / Math.sqrt(count);
  const half = jStat.studentt.inv(0.975, count - 1) * error;
  return { mean: center, low: center - half, high: center + half, count };
}

/** Mean of a[i] − b[i] with its 95 % interval: narrower than two separate ones when a and b rise and fall together. */
export function pairedDifference(a: readonly number[], b: readonly number[]): Interval {
  checkSameLength("paired difference", a, b);
  return interval95(a.map((value, i) => value - (b[i] as number)));
}

/** Spearman's rank correlation, ties at their mean rank; null for fewer than two values or when one side is constant. */
export function spearman(a: readonly number[], b: readonly number[]): number | null {
  checkSameLength("rank correlation", a, b);
  if (a.length < 2 || isConstant(a) || isConstant(b)) return null;
  return jStat.spearmancoeff([...a], [...b]);
}

export interface WinRate {
  /** (wins + ties / 2) / count, 0..1. */
  rate: number;
  low: number | null;
  high: number | null;
  wins: number;
  ties: number;
  losses: number;
  count: number;
}

/**
 * How often a[i] beats b[i], a tie counting half, with Wilson's 95 % score interval. With ties the interval is on the
 * wide side, since a tie varies less than a win or a loss.
 */
export function winRate(a: readonly number[], b: readonly number[]): WinRate {
  checkSameLength("win rate", a, b);
  const count = a.length;
  let wins = 0;
  let ties = 0;
  for (let i = 0; i < count; i++) {
    const difference = (a[i] as number) - (b[i] as number);
    if (difference > 0) wins++;
    else if (difference === 0) ties++;
  }
  const losses = count - wins - ties;
  if (count === 0) return { rate: Number.NaN, low: null, high: null, wins, ties, losses, count };
  const rate = (wins + ties / 2) / count;
  const z = jStat.normal.inv(0.975, 0, 1);
  const scale = 1 + (z * z) / count;
  const center = (rate + (z * z) / (2 * count)) / scale;
  const half = (z / scale) * Math.sqrt((rate * (1 - rate)) / count + (z * z) / (4 * count * count));
  return { rate, low: Math.max(0, center - half), high: Math.min(1, center + half), wins, ties, losses, count };
}

/** Cosine of the angle between two vectors; null when one of them is zero. */
export function cosine(a: ArrayLike<number>, b: ArrayLike<number>): number | null {
  checkSameLength("cosine similarity", a, b);
  let product = 0;
  let squaresA = 0;
  let squaresB = 0;
  for (let i = 0; i < a.length; i++) {
    const x = a[i] as number;
    const y = b[i] as number;
    product += x * y;
    squaresA += x * x;
    squaresB += y * y;
  }
  if (squaresA === 0 || squaresB === 0) return null;
  return product / Math.sqrt(squaresA * squaresB);
}

function isConstant(values: readonly number[]): boolean {
  return values.every((value) => value === values[0]);
}

function checkSameLength(what: string, a: ArrayLike<unknown>, b: ArrayLike<unknown>): void {
  if (a.length === b.length) return;
  throw new TemporaError(`A ${what} needs two lists of one length, not ${a.length} and ${b.length}`, {
    remedy: "Pass one value a prompt on both sides, in the same order.",
  });
}
