import { TemporaError } from "@tempora/errors";
import type { NativeLossResult, NativePreferenceLoss, NativePreferenceSums } from "./addon.ts";
import { checkLoss } from "./check.ts";
import type { PreferenceLoss } from "./losses.ts";
import { addon, nativeFailure } from "./native.ts";

/** Summed log-probs and token counts of P pairs; every array is [P]. */
export type PreferenceSums = NativePreferenceSums;

/** Losses [P] and the derivatives [P] of the batch mean with respect to each policy log-prob sum. */
export type PreferenceLossResult = NativeLossResult;

export function nativeLoss(loss: PreferenceLoss): NativePreferenceLoss {
  return {
    types: loss.terms.map((term) => term.type),
    weights: Float64Array.from(loss.terms, (term) => term.weight),
    beta: loss.beta,
    labelSmoothing: loss.labelSmoothing ?? 0,
    discopopTau: loss.discopopTau ?? 0.05,
  };
}

/**
 * A preference loss as a function of log-prob sums, without a model: TRL's formulas. The mean of pairLosses is the batch
 * loss. Two terms are not each pair's own: aot sorts over the batch, so that only the mean has a meaning; sft is a mean
 * over the batch's chosen tokens, of which pairLosses[i] holds pair i's share, -log-prob · P / Σ chosen lengths, where TRL
 * repeats the batch's mean for every pair.
 * @throws TemporaError for a loss without meaning or arrays of different lengths.
 */
export function preferenceLoss(loss: PreferenceLoss, sums: PreferenceSums): PreferenceLossResult {
  checkLoss(loss);
  const pairs = sums.policyChosen.length;
  for (const [name, values] of Object.entries(sums) as [string, ArrayLike<number>][]) {
    if (values.length === pairs) continue;
    throw new TemporaError(`${name} has ${values.length} entries for ${pairs} pairs`, {
      where: { field: name },
      remedy: "Give every sum and length for every pair.",
    });
  }
  try {
    return addon().preferenceLoss(nativeLoss(loss), sums);
  } catch (error) {
    throw nativeFailure(error);
  }
}
