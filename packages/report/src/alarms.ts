import type { EventRow, RunResult, StrategyResult } from "@tempora/run";
import { percentText } from "./numbers.ts";

/** Something in a run that its owner should look at. */
export interface Alarm {
  strategy: string;
  /** What is seen, with its figures. */
  what: string;
  /** What to do, in a sentence. */
  remedy: string;
}

/** Shares and sizes from which on a figure is worth an alarm: conventions, on the side of silence. */
const limits = {
  gapLeft: 0.6,
  dpoWeight: 0.1,
  ties: 0.5,
  spearmanLost: 0.15,
  failures: 0.2,
  longer: 1.5,
  entropyLeft: 0.5,
  cosine: 0.98,
  steps: 10,
  margin: 0.02,
};

/** The alarms of every strategy, of what is known so far. */
export function alarmsOf(result: RunResult, events: readonly EventRow[]): Alarm[] {
  return result.strategies.flatMap((strategy) =>
    [
      gapShrinking(strategy),
      saturation(strategy, events),
      ties(strategy),
      judgeDrift(strategy),
      judgeFailures(strategy),
      lengthGrowing(strategy),
      entropyFalling(strategy),
      alikePairs(strategy),
      hardlyMoved(strategy),
    ].flatMap((alarm) => (alarm === null ? [] : [{ strategy: strategy.name, ...alarm }])),
  );
}

/** A line for each alarm, for a terminal. */
export function alarmLines(result: RunResult, events: readonly EventRow[]): string[] {
  return alarmsOf(result, events).map(({ strategy, what, remedy }) => `${strategy}: ${what} ${remedy}`);
}

type Found = Omit<Alarm, "strategy"> | null;

const lastPhases = ({ iterations }: StrategyResult) =>
  iterations.flatMap(({ phases }) => {
    const last = phases.at(-1);
    return last === undefined ? [] : [last];
  });

function gapShrinking(strategy: StrategyResult): Found {
  const gaps = lastPhases(strategy).map(({ scoreGap }) => scoreGap.mean);
  const [first, last] = [gaps[0], gaps.at(-1)];
  // Without a gap to begin with there is nothing that shrinks.
  if (first === undefined || last === undefined || !(first > 0) || last >= limits.gapLeft * first) return null;
  return {
    what: `The score gap of the pairs shrank from ${first.toFixed(2)} to ${last.toFixed(2)}.`,
    remedy:
      "Take rejected answers from an older model (the temporal strategy with past: first), more candidates, or stop at the best model.",
  };
}

function saturation({ name }: StrategyResult, events: readonly EventRow[]): Found {
  const weights = events.flatMap((row) => {
    const weight = row.event === "step" && row.strategy === name ? row["tempora/dpo_weight"] : undefined;
    return weight === undefined ? [] : [weight];
  });
  const recent = weights.slice(-limits.steps);
  const mean = recent.reduce((sum, weight) => sum + weight, 0) / recent.length;
  if (recent.length < limits.steps || mean >= limits.dpoWeight) return null;
  return {
    what: `The DPO weight of the last ${limits.steps} steps is ${mean.toFixed(3)}: the pairs are saturated and teach next to nothing.`,
    remedy: "Lower loss.beta, the learning rate or the number of epochs.",
  };
}

function ties({ models }: StrategyResult): Found {
  const rate = models.at(-1)?.judge.tieRate ?? 0;
  if (rate <= limits.ties) return null;
  return {
    what: `The judge scores all answers to ${percentText(rate)} of the prompts the same: these give no pair.`,
    remedy:
      "Use a judge with a finer score (judge.kind: expected), more judgements an answer, or a higher temperature.",
  };
}

function judgeDrift({ models }: StrategyResult): Found {
  const [first, last] = [models[0]?.judge, models.at(-1)?.judge];
  if (first === undefined || last === undefined || first === last) return null;
  const remedy = "Let M0 judge (judge.role: frozen), or replay graded examples in training.";
  if (first.spearman !== null && last.spearman !== null && last.spearman < first.spearman - limits.spearmanLost) {
    const [from, to] = [first.spearman.toFixed(2), last.spearman.toFixed(2)];
    return { what: `The judge's rank correlation with the truth fell from ${from} to ${to}.`, remedy };
  }
  // On the same answers: one standard deviation of the first judge's scores, which one answer does not have.
  const [before, now] = [first.mean ?? Number.NaN, last.mean ?? Number.NaN];
  const deviation = Math.sqrt(first.variance ?? Number.NaN);
  if (!(deviation > 0 && Math.abs(now - before) > deviation)) return null;
  return {
    what: `The judge's mean score of the same answers moved from ${before.toFixed(2)} to ${now.toFixed(2)}.`,
    remedy,
  };
}

function judgeFailures({ models }: StrategyResult): Found {
  const rate = models.at(-1)?.judge.failureRate ?? 0;
  if (rate <= limits.failures) return null;
  return {
    what: `${percentText(rate)} of the judgements hold no score.`,
    remedy:
      "Choose a judge that does not speak (judge.kind: expected), or teach the model to judge before (start.data).",
  };
}

function lengthGrowing({ models }: StrategyResult): Found {
  const [first, last] = [models[0]?.answerLength, models.at(-1)?.answerLength];
  if (first === undefined || last === undefined || last <= limits.longer * first) return null;
  return {
    what: `Held-out answers grew from ${first.toFixed(0)} to ${last.toFixed(0)} tokens.`,
    remedy:
      "Read the length-controlled win rate instead of the plain one, and choose among answers of nearly equal scores by length (selection.lengthControl).",
  };
}

function entropyFalling({ models }: StrategyResult): Found {
  const [first, last] = [models[0]?.tokenEntropy, models.at(-1)?.tokenEntropy];
  if (first === undefined || last === undefined || last >= limits.entropyLeft * first) return null;
  return {
    what: `The entropy of the answers fell from ${first.toFixed(2)} to ${last.toFixed(2)} nats a token: the model says ever the same.`,
    remedy: "Raise loss.beta or lower the learning rate, sample at a higher temperature, or stop at the best model.",
  };
}

function alikePairs(strategy: StrategyResult): Found {
  const cosine = lastPhases(strategy).at(-1)?.cosine.mean;
  if (cosine === undefined || !(cosine > limits.cosine)) return null;
  return {
    what: `Chosen and rejected are nearly the same to the model (cosine ${cosine.toFixed(3)}): their gradients cancel, or its answers have lost their variety.`,
    remedy: "Sample at a higher temperature, take more candidates, or take rejected answers from an older model.",
  };
}

/** Few prompts at a learning rate meant for thousands: the loop runs, and every model is M0. */
function hardlyMoved(strategy: StrategyResult): Found {
  const trainings = lastPhases(strategy).map(({ training }) => training);
  const moved = trainings.map(({ first, finalMargin }) => finalMargin - (first["rewards/margins"] ?? Number.NaN));
  const most = Math.max(...moved);
  // Infinite before the first training, and not a number where the loss has no rewards.
  if (!(Math.abs(most) < limits.margin)) return null;
  const steps = Math.max(...trainings.map((training) => training.steps));
  return {
    what: `The trainings, of ${steps === 1 ? "1 step" : `${steps} steps`} at most, raised the reward margin by no more than ${most.toFixed(3)}: the models are hardly moved from where they started.`,
    remedy: "Raise the learning rate (--lr) or the number of epochs (--epochs), or give more prompts an iteration.",
  };
}
