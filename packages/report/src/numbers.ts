import { manyTruncated } from "@tempora/preferences";
import type { Estimate, PhaseResult, RunResult, StrategyResult } from "@tempora/run";

const dash = "–";

/** "3.02 ± 0.11"; the interval is left out where there is none. */
export function estimateText(estimate: Estimate | null | undefined, digits = 2): string {
  if (estimate === null || estimate === undefined || !Number.isFinite(estimate.mean)) return dash;
  const { mean, low, high } = estimate;
  if (low === null || high === null) return mean.toFixed(digits);
  return `${mean.toFixed(digits)} ± ${((high - low) / 2).toFixed(digits)}`;
}

/** "62 % ± 5" */
export function shareText(estimate: Estimate | null | undefined): string {
  if (estimate === null || estimate === undefined || !Number.isFinite(estimate.mean)) return dash;
  const { mean, low, high } = estimate;
  const center = `${(100 * mean).toFixed(0)} %`;
  return low === null || high === null ? center : `${center} ± ${(50 * (high - low)).toFixed(0)}`;
}

export function numberText(value: number | null | undefined, digits = 2): string {
  return value === null || value === undefined || !Number.isFinite(value) ? dash : value.toFixed(digits);
}

export function percentText(value: number | null | undefined): string {
  return value === null || value === undefined || !Number.isFinite(value) ? dash : `${(100 * value).toFixed(1)} %`;
}

/** "1.20M", "3.40T" */
export function countText(value: number): string {
  return scaled(value).join("");
}

/** "197 MB", "1.20 GB" */
export function bytesText(value: number): string {
  const [number, unit] = scaled(value);
  return `${number} ${unit}B`;
}

/** Three figures, and the letter of their unit. */
function scaled(value: number): [number: string, unit: string] {
  const units: [number, string][] = [
    [1e18, "E"],
    [1e15, "P"],
    [1e12, "T"],
    [1e9, "G"],
    [1e6, "M"],
    [1e3, "k"],
  ];
  // From what rounds to the unit: "1000k" is 1.00M.
  const unit = units.find(([size]) => value >= 0.9995 * size);
  if (unit === undefined) return [`${Math.round(value)}`, ""];
  const number = value / unit[0];
  return [number.toFixed(number < 10 ? 2 : number < 100 ? 1 : 0), unit[1]];
}

/** What one model of a strategy achieved and cost. */
export interface ModelSummary {
  model: string;
  /** Whether no model of the strategy has a higher held-out score. */
  best: boolean;
  /** The true score, else the judge's. */
  heldOutScore: Estimate;
  winRate: Estimate | null;
  lengthControlledWinRate: Estimate | null;
  scoreGap: Estimate | null;
  cosine: Estimate | null;
  pairs: number | null;
  /** Of the answers that the pairs were selected from: the share that was cut off by length. */
  cutOff: number | null;
  /** Tokens and FLOPs of the strategy up to this model. */
  tokens: number;
  flops: number;
  /** Of the judge's scores with the truth: on M0's answers, and on the model's own. */
  spearman: number | null;
  spearmanOwn: number | null;
  answerLength: number;
}

/** One row for each model, M0 first; the pairs are those that trained the model itself. */
export function modelSummaries(strategy: StrategyResult): ModelSummary[] {
  let tokens = 0;
  let flops = 0;
  return strategy.models.map((model, index) => {
    const iteration = index === 0 ? undefined : strategy.iterations[index - 1];
    for (const entry of iteration?.ledger ?? []) {
      tokens +=
        entry.promptTokens +
        entry.generatedTokens +
        entry.judgedTokens +
        entry.scoredTokens +
        entry.trainedTokens +
        entry.billedPromptTokens +
        entry.billedTokens;
      flops += entry.flops;
    }
    const phase = iteration?.phases.at(-1);
    return {
      model: model.model,
      best: model.model === strategy.best,
      heldOutScore: model.heldOutScore,
      winRate: model.winRate,
      lengthControlledWinRate: model.lengthControlledWinRate,
      scoreGap: phase?.scoreGap ?? null,
      cosine: phase?.cosine ?? null,
      pairs: phase?.pairs ?? null,
      cutOff: phase === undefined || phase.answers === 0 ? null : phase.truncated / phase.answers,
      tokens,
      flops,
      spearman: model.judge.spearman,
      spearmanOwn: model.judge.spearmanOwn,
      answerLength: model.answerLength,
    };
  });
}

/** What a reader must know of the pairs beside their number: told only where it is so. */
export function pairNotes(result: RunResult): string[] {
  return result.strategies.flatMap(({ name, iterations }) => {
    const phases = iterations.flatMap((iteration) => iteration.phases);
    const sum = (value: (phase: PhaseResult) => number) => phases.reduce((total, phase) => total + value(phase), 0);
    const [pairs, differing] = [sum((phase) => phase.pairs), sum(({ textDiffers }) => textDiffers)];
    const [answers, truncated] = [sum((phase) => phase.answers), sum((phase) => phase.truncated)];
    const notes: string[] = [];
    if (differing > 0) {
      notes.push(`${name}: ${differing} of ${pairs} pairs have a text that does not give the trained ids again`);
    }
    if (truncated > manyTruncated * answers) {
      const share = `${name}: ${percentText(truncated / answers)} of the answers were cut off by length`;
      const kept = (result.settings.selection as { truncated?: string } | undefined)?.truncated === "keep";
      notes.push(
        kept ? `${share}, and train without an end token` : `${share}: pairs without them favour short answers`,
      );
    }
    return notes;
  });
}

/** Says of a run that left prompts out how many, and which the first was. */
export function leftOutNotes({ leftOut }: Pick<RunResult, "leftOut">): string[] {
  if (leftOut === undefined) return [];
  const { prompts, first } = leftOut;
  const place = first.row === undefined ? "" : ` (row ${first.row} of ${first.file})`;
  return [`${prompts} prompts were left out, which have no room in the context. The first: ${first.reason}${place}`];
}

export function heldOutTitle(result: RunResult): string {
  return result.graded ? "true score" : "judged score";
}

/** "temporal M1 (true score 2.83 ± 0.06)": each strategy's best model. */
export function bestModels(result: RunResult): string {
  const best = result.strategies.map((strategy) => {
    const model = strategy.models.find(({ model: name }) => name === strategy.best);
    return `${strategy.name} ${strategy.best} (${heldOutTitle(result)} ${estimateText(model?.heldOutScore)})`;
  });
  return `Best on the held-out prompts: ${best.join(", ")}`;
}

/** What measured the gap of a run's pairs. */
export function gapSources(result: RunResult): string {
  const phases = result.strategies.flatMap(({ iterations }) => iterations.flatMap((iteration) => iteration.phases));
  return [...new Set(phases.map(({ gapBy }) => gapBy))].join(", ");
}

export function winRateTitle(result: RunResult): string {
  const by = result.strategies[0]?.models[0]?.winRateBy ?? "judge";
  return `win rate vs M0 (${by === "judge" ? "by judge" : "true score"})`;
}
