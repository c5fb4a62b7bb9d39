import { histogramScores } from "@tempora/preferences";
import type { Estimate, EventRow, RunResult, StrategyResult } from "@tempora/run";
import { answerMeasure, distinctWords } from "./answers.ts";
import { axisRange } from "./axis-range.ts";
import { gapSources, type ModelSummary, modelSummaries } from "./numbers.ts";
import type { Run } from "./run-folder.ts";

/** x, y, and the ends of y's interval where it has one. */
export type Point = [x: number, y: number, low: number | null, high: number | null];

export interface Series {
  name: string;
  /** Index into the page's colours: a strategy has one colour in every chart. */
  color: number;
  dashed?: boolean;
  /** Tells models of one strategy apart. */
  opacity?: number;
  points: Point[];
}

/** One chart, as plain data; the page turns it into echarts options. */
export interface Chart {
  id: string;
  section: "result" | "pairs" | "training" | "judge";
  title: string;
  note: string;
  kind: "lines" | "bars";
  xName: string;
  /** Names of the x values 0, 1, ...; null: x is a number. */
  categories: string[] | null;
  percent?: boolean;
  /** Of the y axis; null: the page chooses. */
  range: [low: number, high: number] | null;
  series: Series[];
}

/** A chart before its axis is chosen. */
type PlainChart = Omit<Chart, "range">;

/** Every chart that the run has data for. */
export function chartsOf(run: Run): Chart[] {
  const { result, events } = run;
  const charts = [
    ...resultCharts(run),
    ...pairCharts(result),
    ...trainingCharts(result, events),
    ...judgeCharts(result),
  ];
  return charts
    .map((chart) => ({ ...chart, series: chart.series.filter((series) => series.points.length > 0) }))
    .filter((chart) => chart.series.length > 0)
    .map((chart) => ({ ...chart, range: chart.kind === "bars" ? null : axisRange(chart) }));
}

function resultCharts(run: Run): PlainChart[] {
  const { result } = run;
  const models = modelNames(result);
  const base = { section: "result", kind: "lines", xName: "model", categories: models } as const;
  return [
    {
      ...base,
      id: "true-score",
      title: "True score",
      note: "Held-out answers graded 0 to 5 by a program; never used in training. Bars: 95 % intervals.",
      series: perModel(result, (model) => model.trueScore),
    },
    {
      ...base,
      id: "win-rate",
      title: "Win rate against M0",
      note: "Share of held-out prompts won, a tie counting half; dashed as if all answers were equally long. Bars: 95 % intervals.",
      percent: true,
      series: [
        ...perModel(result, (model) => model.winRate),
        ...perModel(result, (model) => model.lengthControlledWinRate, " (length-controlled)", true),
      ],
    },
    {
      ...base,
      id: "judged-score",
      title: "Judged score",
      note: "Of the held-out answers, by the judge that scores them for every model. Bars: 95 % intervals.",
      series: result.graded ? [] : perModel(result, (model) => model.heldOutScore),
    },
    ...partNames(result).map(
      (name): PlainChart => ({
        ...base,
        id: `part-${name}`,
        title: `The judge's part ${name}`,
        note: "Its own score of the held-out answers, on its own scale. Bars: 95 % intervals.",
        series: perModel(result, (model) => model.judgedParts[name] ?? null),
      }),
    ),
    computeChart(result),
    {
      ...base,
      id: "answer-length",
      title: "Answer length",
      note: "Mean tokens of a held-out answer. Bars: 95 % intervals.",
      series: perModel(result, ({ model }, { name }) => answerMeasure(run, name, model, ({ tokens }) => tokens)),
    },
    {
      ...base,
      id: "token-entropy",
      title: "Entropy of the answers",
      note: "Mean −log-prob of a held-out answer's tokens, in nats: where it falls towards 0, a model says ever the same.",
      series: perModel(result, ({ tokenEntropy }) => (tokenEntropy === undefined ? null : plain(tokenEntropy))),
    },
    {
      ...base,
      id: "distinct-words",
      title: "Distinct words of an answer",
      note: "Counted by the report: answers that grow emptier or repeat themselves have fewer. Bars: 95 % intervals.",
      series: perModel(result, ({ model }, { name }) => answerMeasure(run, name, model, distinctWords)),
    },
  ];
}

/** The same compute stands at the same place: strategies differ in what an iteration costs. */
function computeChart(result: RunResult): PlainChart {
  const summaries = result.strategies.map(modelSummaries);
  const largest = Math.max(1, ...summaries.flat().map(({ flops }) => flops));
  const [size, unit] = flopUnits.find(([least]) => largest >= least) ?? [1, "FLOPs"];
  return {
    id: "score-by-compute",
    section: "result",
    title: result.graded ? "True score over compute" : "Win rate over compute",
    note: "All of a strategy's work from M0 on: answers, judgements, references, training. Bars: 95 % intervals.",
    kind: "lines",
    xName: unit,
    categories: null,
    percent: !result.graded,
    series: result.strategies.map(({ name }, color) => ({
      name,
      color,
      points: (summaries[color] as ModelSummary[]).flatMap((model) =>
        point(model.flops / size, result.graded ? model.heldOutScore : model.winRate),
      ),
    })),
  };
}

const flopUnits: [number, string][] = [
  [1e18, "EFLOPs"],
  [1e15, "PFLOPs"],
  [1e12, "TFLOPs"],
  [1e9, "GFLOPs"],
  [1e6, "MFLOPs"],
];

function pairCharts(result: RunResult): PlainChart[] {
  const base = { section: "pairs", kind: "lines", xName: "iteration", categories: null } as const;
  return [
    {
      ...base,
      id: "score-gap",
      title: "Score gap between chosen and rejected",
      note: `By ${gapSources(result)}; dashed by the true score. The gap is what the pairs teach. Bars: 95 % intervals.`,
      series: [
        ...perIteration(result, "", false, (phase) => phase.scoreGap),
        ...perIteration(result, " (true)", true, (phase) => phase.trueGap),
      ],
    },
    {
      ...base,
      id: "cosine",
      title: "Cosine similarity of chosen and rejected",
      note: "Of their last-layer representations: towards 1 the gradient difference vanishes. Bars: 95 % intervals.",
      series: perIteration(result, "", false, (phase) => phase.cosine),
    },
    {
      ...base,
      id: "pair-count",
      title: "Pairs that train the next model",
      note: "Prompts with equal or missing scores give none.",
      series: perIteration(result, "", false, (phase) => plain(phase.pairs)),
    },
  ];
}

function trainingCharts(result: RunResult, events: readonly EventRow[]): PlainChart[] {
  const base = { section: "training", kind: "lines", xName: "step over all iterations", categories: null } as const;
  const chart = (id: string, title: string, note: string, field: StepField): PlainChart => ({
    ...base,
    id,
    title,
    note,
    series: stepSeries(result, events, field),
  });
  return [
    chart(
      "margin",
      "Reward margin",
      "β times the difference of the log-ratios of chosen and rejected.",
      "rewards/margins",
    ),
    chart(
      "dpo-weight",
      "DPO weight",
      "Mean σ(−margin): near 0 the pairs are saturated and teach nothing.",
      "tempora/dpo_weight",
    ),
    chart("grad-norm", "Gradient norm", "Before clipping.", "grad_norm"),
    chart("loss", "Loss", "Preference loss with its sft terms, without replay.", "loss"),
    chart(
      "accuracy",
      "Reward accuracy",
      "Share of pairs whose chosen answer has the larger reward.",
      "rewards/accuracies",
    ),
  ];
}

function judgeCharts(result: RunResult): PlainChart[] {
  const models = modelNames(result);
  const base = { section: "judge", kind: "lines", xName: "judge", categories: models } as const;
  return [
    {
      ...base,
      id: "judge-spearman",
      title: "Judge's rank correlation with the truth",
      note: "Spearman over M0's answers to the held-out prompts, which every model judges.",
      series: perModel(result, (model) => (model.judge.spearman === null ? null : plain(model.judge.spearman))),
    },
    {
      ...base,
      id: "judge-spearman-own",
      title: "The same on the judge's own answers",
      note: "Over its own answers to the held-out prompts: the better they are, the less there is to rank.",
      series: perModel(result, (model) => (model.judge.spearmanOwn === null ? null : plain(model.judge.spearmanOwn))),
    },
    {
      ...base,
      id: "judge-failures",
      title: "Judgements without a score",
      note: "Retried, then left out of the pairs; never counted as a score.",
      percent: true,
      series: perModel(result, (model) => plain(model.judge.failureRate)),
    },
    {
      ...base,
      id: "judge-ties",
      title: "Prompts whose answers all score the same",
      note: "They give no pair.",
      percent: true,
      series: perModel(result, (model) => (model.judge.tieRate === null ? null : plain(model.judge.tieRate))),
    },
    histogram(result),
  ];
}

/** Scores given by every model as a judge, as shares. */
function histogram(result: RunResult): PlainChart {
  const series: Series[] = [];
  result.strategies.forEach((strategy, index) => {
    strategy.models.forEach((model, position) => {
      if (position === 0 && index > 0) return;
      const counts = model.judge.histogram;
      const total = counts.reduce((sum, count) => sum + count, 0);
      series.push({
        name: position === 0 ? model.model : `${strategy.name} ${model.model}`,
        color: position === 0 ? -1 : index,
        opacity: position === 0 ? 1 : 0.4 + (0.6 * position) / (strategy.models.length - 1),
        points: total === 0 ? [] : counts.map((count, score) => [score, count / total, null, null]),
      });
    });
  });
  // One scale for all: that of the first judge.
  const first = result.strategies[0]?.models[0]?.judge;
  const scores = first === undefined ? [] : histogramScores(first);
  return {
    id: "judge-histogram",
    section: "judge",
    title: "Scores given",
    note: "By each model as a judge of the same answers.",
    kind: "bars",
    xName: "score",
    categories: scores.map((score) => `${Number(score.toFixed(2))}`),
    percent: true,
    series,
  };
}

function modelNames(result: RunResult): string[] {
  const longest = Math.max(0, ...result.strategies.map((strategy) => strategy.models.length));
  return Array.from({ length: longest }, (_, index) => `M${index}`);
}

function plain(value: number): Estimate {
  return { mean: value, low: null, high: null, count: 1 };
}

/** The parts of the judges, where they are weighted sums. */
function partNames(result: RunResult): string[] {
  const models = result.strategies.flatMap((strategy) => strategy.models);
  return [...new Set(models.flatMap(({ judgedParts }) => Object.keys(judgedParts)))];
}

function perModel(
  result: RunResult,
  value: (model: StrategyResult["models"][number], strategy: StrategyResult) => Estimate | null,
  suffix = "",
  dashed = false,
): Series[] {
  return result.strategies.map((strategy, color) => ({
    name: `${strategy.name}${suffix}`,
    color,
    dashed,
    points: strategy.models.flatMap((model, index) => point(index, value(model, strategy))),
  }));
}

type Phase = StrategyResult["iterations"][number]["phases"][number];

/** By the phase whose pairs train the next model. */
function perIteration(
  result: RunResult,
  suffix: string,
  dashed: boolean,
  value: (phase: Phase) => Estimate | null,
): Series[] {
  return result.strategies.map((strategy, color) => ({
    name: `${strategy.name}${suffix}`,
    color,
    dashed,
    points: strategy.iterations.flatMap(({ iteration, phases }) => {
      const last = phases.at(-1);
      return last === undefined ? [] : point(iteration, value(last));
    }),
  }));
}

function point(x: number, estimate: Estimate | null): Point[] {
  if (estimate === null || !Number.isFinite(estimate.mean)) return [];
  return [[x, estimate.mean, estimate.low, estimate.high]];
}

type StepEvent = Extract<EventRow, { event: "step" }>;
type StepField = "rewards/margins" | "tempora/dpo_weight" | "grad_norm" | "loss" | "rewards/accuracies";

/** The steps of all iterations and phases of a strategy in a row. */
function stepSeries(result: RunResult, events: readonly EventRow[], field: StepField): Series[] {
  return result.strategies.map((strategy, color) => {
    const steps = events.filter((row): row is StepEvent => row.event === "step" && row.strategy === strategy.name);
    return {
      name: strategy.name,
      color,
      points: steps.flatMap((row, index) => {
        const value = row[field];
        return value === undefined || !Number.isFinite(value) ? [] : point(index + 1, plain(value));
      }),
    };
  });
}
