/** Whose answers a pool holds: M_0's (or another past model's), M_i's, or those of the temporary model M_f. */
export type Role = "past" | "current" | "future";

/**
 * Which pool supplies one side of the pair: `preferred` when its extreme score is strictly better for that side
 * (a higher best for chosen, a lower worst for rejected) than that of `otherwise`, else `otherwise`.
 */
export interface SideRule {
  preferred: Role;
  otherwise: Role;
}

export interface PhaseRule {
  name: string;
  chosen: SideRule;
  rejected: SideRule;
  /** What becomes of the model trained on these pairs: M_f, which only answers, or M_{i+1}. It starts from M_i. */
  trains: "future" | "next";
}

export const strategyNames = ["temporal", "self-rewarding", "past-only", "future-only"] as const;

export type StrategyName = (typeof strategyNames)[number];

/** How an iteration makes its preference pairs: data, read by one loop. */
export interface Strategy {
  name: StrategyName;
  description: string;
  phases: readonly PhaseRule[];
}

const current: SideRule = { preferred: "current", otherwise: "current" };
const pastWorst: SideRule = { preferred: "past", otherwise: "current" };
const futureBest: SideRule = { preferred: "future", otherwise: "current" };

export const strategies: Readonly<Record<StrategyName, Strategy>> = {
  temporal: {
    name: "temporal",
    description: "Rejected from the past model, chosen from the future one (arXiv:2508.06026)",
    phases: [
      { name: "anchored-rejection", chosen: current, rejected: pastWorst, trains: "future" },
      { name: "future-guided-chosen", chosen: futureBest, rejected: pastWorst, trains: "next" },
    ],
  },
  "self-rewarding": {
    name: "self-rewarding",
    description: "Best and worst of the current model's own answers (arXiv:2401.10020)",
    phases: [{ name: "self-rewarding", chosen: current, rejected: current, trains: "next" }],
  },
  "past-only": {
    name: "past-only",
    description: "Ablation: rejected from the past model, chosen from the current one",
    phases: [{ name: "anchored-rejection", chosen: current, rejected: pastWorst, trains: "next" }],
  },
  "future-only": {
    name: "future-only",
    description: "Ablation: chosen from the future model, rejected from the current one",
    phases: [
      { name: "self-rewarding", chosen: current, rejected: current, trains: "future" },
      { name: "future-guided-chosen", chosen: futureBest, rejected: current, trains: "next" },
    ],
  },
};

/** The pools that a phase reads, in the order past, current, future. */
export function rolesOf(phase: PhaseRule): Role[] {
  const used = new Set([phase.chosen.preferred, phase.chosen.otherwise]);
  used.add(phase.rejected.preferred);
  used.add(phase.rejected.otherwise);
  return (["past", "current", "future"] as const).filter((role) => used.has(role));
}
