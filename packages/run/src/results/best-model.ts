import type { ModelResult } from "./results.ts";

/** The model with the highest held-out score; of equal ones the earlier. */
export function bestModel(models: readonly ModelResult[]): ModelResult | null {
  let best: ModelResult | null = null;
  for (const model of models) {
    if (best === null || model.heldOutScore.mean > best.heldOutScore.mean) best = model;
  }
  return best;
}

/** Why a loop should end whose last `count` models all score below the best before them; null while it may go on. */
export function fallen(models: readonly ModelResult[], count: number): string | null {
  const best = bestModel(models);
  if (count === 0 || best === null) return null;
  const worse = models.slice(models.indexOf(best) + 1);
  if (worse.length < count) return null;
  const scores = worse.map(({ model, heldOutScore }) => `${model} ${heldOutScore.mean.toFixed(2)}`);
  return `its held-out score fell: ${scores.join(", ")} after ${best.model} ${best.heldOutScore.mean.toFixed(2)}`;
}
