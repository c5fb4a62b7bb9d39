/** Whose answers a pool holds: a past model's (`Past` says which), M_i's, or those of the temporary model M_f. */
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
  /** What becomes of the model trained on these pairs: M_f, or M_{i+1}. */
  trains: "future" | "next";
  /** The model that the training starts from, which is its reference as well: M_i, or M_f of an earlier phase. */
  startsFrom: "current" | "future";
}

/** Which model is the past one of M_i: M_0, as in the paper; M_{i−1}; or M_{i−lag}, M_0 where there is none so early. */
export type Past = "first" | "previous" | { lag: number };

export const strategyNames = [
  "temporal",
  "temporal-previous",
  "temporal-continued",
  "temporal-previous-continued",
  "self-rewarding",
  "past-only",
  "future-only",
] as const;

export type StrategyName = (typeof strategyNames)[number];

/** How an iteration makes its preference pairs: data, read by one loop. */
export interface Strategy {
  name: StrategyName;
  description: string;
  past: Past;
  phases: readonly PhaseRule[];
}

/** What of a strategy may be chosen otherwise; null leaves it as the strategy has it. */
export interface StrategyVariant {
  past: Past | null;
  /** From M_f the next model goes on with what the temporary one has learned; a strategy without M_f starts from M_i. */
  nextStartsFrom: "current" | "future" | null;
}

const current: SideRule = { preferred: "current", otherwise: "current" };
const pastWorst: SideRule = { preferred: "past", otherwise: "current" };
const futureBest: SideRule = { preferred: "future", otherwise: "current" };

const temporal: Strategy = {
  name: "temporal",
  description: "Rejected from the past model, chosen from the future one (arXiv:2508.06026)",
  past: "first",
  phases: [
    { name: "anchored-rejection", chosen: current, rejected: pastWorst, trains: "future", startsFrom: "current" },
    { name: "future-guided-chosen", chosen: futureBest, rejected: pastWorst, trains: "next", startsFrom: "current" },
  ],
};

export const strategies: Readonly<Record<StrategyName, Strategy>> = {
  temporal,
  "temporal-previous": {
    ...temporal,
    name: "temporal-previous",
    description: "Temporal, whose past is the model before the current one",
    past: "previous",
  },
  "temporal-continued": {
    ...temporal,
    name: "temporal-continued",
    description: "Temporal, whose next model goes on from the future one",
    phases: nextFrom("future", temporal.phases),
  },
  "temporal-previous-continued": {
    ...temporal,
    name: "temporal-previous-continued",
    description: "Temporal, whose past is the model before and whose next model goes on from the future one",
    past: "previous",
    phases: nextFrom("future", temporal.phases),
  },
  "self-rewarding": {
    name: "self-rewarding",
    description: "Best and worst of the current model's own answers (arXiv:2401.10020)",
    past: "first",
    phases: [{ name: "self-rewarding", chosen: current, rejected: current, trains: "next", startsFrom: "current" }],
  },
  "past-only": {
    name: "past-only",
    description: "Ablation: rejected from the past model, chosen from the current one",
    past: "first",
    phases: [
      { name: "anchored-rejection", chosen: current, rejected: pastWorst, trains: "next", startsFrom: "current" },
    ],
  },
  "future-only": {
    name: "future-only",
    description: "Ablation: chosen from the future model, rejected from the current one",
    past: "first",
    phases: [
      { name: "self-rewarding", chosen: current, rejected: current, trains: "future", startsFrom: "current" },
      { name: "future-guided-chosen", chosen: futureBest, rejected: current, trains: "next", startsFrom: "current" },
    ],
  },
};

/** A strategy in one of its variants. */
export function strategyVariant(name: StrategyName, { past, nextStartsFrom }: StrategyVariant): Strategy {
  const strategy = strategies[name];
  const changed = nextStartsFrom !== null && trainsFuture(strategy);
  return {
    ...strategy,
    past: past ?? strategy.past,
    phases: changed ? nextFrom(nextStartsFrom, strategy.phases) : strategy.phases,
  };
}

function nextFrom(startsFrom: PhaseRule["startsFrom"], phases: readonly PhaseRule[]): PhaseRule[] {
  return phases.map((phase) => (phase.trains === "next" ? { ...phase, startsFrom } : phase));
}

export function trainsFuture({ phases }: Strategy): boolean {
  return phases.some(({ trains }) => trains === "future");
}

/** The index of the past model of M_current. */
export function pastIndex(past: Past, current: number): number {
  if (past === "first") return 0;
  return Math.max(0, current - (past === "previous" ? 1 : past.lag));
}

/** The pools that a phase reads, in the order past, current, future. */
export function rolesOf(phase: PhaseRule): Role[] {
  const used = new Set([phase.chosen.preferred, phase.chosen.otherwise]);
  used.add(phase.rejected.preferred);
  used.add(phase.rejected.otherwise);
  return (["past", "current", "future"] as const).filter((role) => used.has(role));
}
