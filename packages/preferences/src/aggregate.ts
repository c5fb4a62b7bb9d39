import { mean, median } from "simple-statistics";

export type Aggregation = "mean" | "median";

/** One response's score from its judgements, never rounded; null when none of them parsed. */
export function aggregate(scores: readonly (number | null)[], how: Aggregation = "mean"): number | null {
  const parsed = scores.filter((score): score is number => score !== null);
  if (parsed.length === 0) return null;
  return how === "mean" ? mean(parsed) : median(parsed);
}
