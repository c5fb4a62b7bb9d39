/** TRL's loss_type names; formulas in native/src/engine/preference_loss.cpp. */
export const lossTypes = [
  "sigmoid",
  "hinge",
  "ipo",
  "robust",
  "exo_pair",
  "nca_pair",
  "bco_pair",
  "sppo_hard",
  "aot",
  "aot_unpaired",
  "apo_zero",
  "apo_down",
  "discopop",
  "sigmoid_norm",
  "sft",
] as const;

export type LossType = (typeof lossTypes)[number];

/** A weighted sum of preference losses. `[{ type: "sigmoid", weight: 1 }, { type: "sft", weight: 0.3 }]` is RPO. */
export interface PreferenceLoss {
  terms: readonly { type: LossType; weight: number }[];
  /** Strength of the pull to the reference; > 0. */
  beta: number;
  /**
   * In [0, 0.5) for sigmoid, robust and aot; must be > 0 for exo_pair. Ignored where a loss does not define it. A smoothed
   * sigmoid is conservative DPO; TRL 1.13 leaves the smoothing out of sigmoid.
   */
  labelSmoothing?: number;
  /** Temperature of discopop's modulation. Default 0.05, as in TRL. */
  discopopTau?: number;
}

/** True when a pair's loss depends on other pairs of the batch (aot sorts over the batch). */
export function couplesPairs(loss: PreferenceLoss): boolean {
  return loss.terms.some((term) => term.type === "aot" || term.type === "aot_unpaired");
}
