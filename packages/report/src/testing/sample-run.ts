import type {
  AnswerRow,
  Estimate,
  EventRow,
  IterationResult,
  JudgeQuality,
  LedgerEntry,
  LedgerTotals,
  ModelResult,
  PairRow,
  PhaseResult,
  RunResult,
  StrategyResult,
} from "@tempora/run";
import type { Run } from "../run-folder.ts";

/** A small finished run made up for tests: temporal with two iterations, self-rewarding with one. */
export function sampleRun(): Run {
  const strategies = [strategy("temporal", "", [2, 2]), strategy("self-rewarding", "self-rewarding/", [1])];
  const result: RunResult = {
    format: 2,
    status: "finished",
    codeVersion: "c0de".repeat(16),
    settings: { seed: 0, loss: { beta: 0.3 }, note: "</script><b>bold</b>" },
    device: { device: "cpu", name: "Test CPU", dtype: "f32" },
    graded: true,
    start: {
      origin: "trained",
      checkpointHash: "beef".repeat(16),
      parameters: 912_000,
      steps: 600,
      tokens: 2_300_000,
      flops: 1.2e13,
      finalLoss: 0.71,
    },
    strategies,
  };
  const pairs = strategies.flatMap(({ name, iterations }) =>
    iterations.flatMap(({ iteration, phases }) =>
      phases.map(({ phase, pairs: count }) => ({
        strategy: name,
        iteration,
        phase,
        rows: Array.from({ length: count }, (_, index) => pairRow(name, iteration, phase, index)),
      })),
    ),
  );
  const answers = strategies.flatMap(({ name, models }) =>
    models.map(({ model }, index) => ({
      strategy: name,
      model,
      rows: Array.from({ length: 25 }, (_, k) => answerRow(model, index, k)),
    })),
  );
  return { folder: "runs/sample", result, events: strategies.flatMap(stepEvents), pairs, answers };
}

export function estimate(mean: number, half: number | null = 0.1): Estimate {
  if (half === null) return { mean, low: null, high: null, count: 1 };
  return { mean, low: mean - half, high: mean + half, count: 100 };
}

function strategy(name: string, folder: string, phases: readonly number[]): StrategyResult {
  const iterations = phases.map((count, index) => iterationResult(folder, index + 1, count));
  const models = Array.from({ length: phases.length + 1 }, (_, index) => modelResult(folder, index));
  return {
    name,
    folder,
    matches: folder === "" ? null : "temporal",
    iterations,
    models,
    best: `M${phases.length}`,
    totals: totals(phases.length),
  };
}

function totals(times: number): LedgerTotals {
  const entry = {
    promptTokens: 1000,
    generatedTokens: 2000,
    judgedTokens: 3000,
    scoredTokens: 400,
    trainedTokens: 500,
  };
  return {
    promptTokens: times * entry.promptTokens,
    generatedTokens: times * entry.generatedTokens,
    judgedTokens: times * entry.judgedTokens,
    scoredTokens: times * entry.scoredTokens,
    trainedTokens: times * entry.trainedTokens,
    billedPromptTokens: 0,
    billedTokens: 0,
    flops: times * 4e12,
  };
}

function iterationResult(folder: string, iteration: number, phaseCount: number): IterationResult {
  const ledger: LedgerEntry[] = [
    { iteration, stage: "generate", label: `candidates of M${iteration - 1}`, ...totals(1) },
  ];
  return {
    iteration,
    prompts: 40,
    start: `M${iteration - 1}`,
    next: `M${iteration}`,
    candidatesFile: `${folder}iterations/${iteration}/candidates.jsonl`,
    judgementsFile: `${folder}iterations/${iteration}/judgements.jsonl`,
    phases: Array.from({ length: phaseCount }, (_, index) => phaseResult(folder, iteration, index + 1, phaseCount)),
    audits: [],
    ledger,
  };
}

function phaseResult(folder: string, iteration: number, phase: number, phaseCount: number): PhaseResult {
  const last = phase === phaseCount;
  const metrics = {
    ...{ step: 1, epoch: 1, loss: 0.6, grad_norm: 1, learning_rate: 1e-3, num_tokens: 10 },
    "rewards/margins": 0,
  };
  return {
    phase,
    name: "rule",
    start: `M${iteration - 1}`,
    trained: last ? `M${iteration}` : `F${iteration}`,
    pairsFile: `${folder}iterations/${iteration}/${last ? "pairs" : "pairs-future"}.jsonl`,
    pairs: 25,
    answers: 448,
    truncated: 14,
    textDiffers: 1,
    dropped: { tie: 3 },
    chosenRoles: { current: 25 },
    rejectedRoles: { past: 25 },
    scoreGap: estimate(3.67),
    gapBy: "held-back judgements",
    pickedGap: estimate(3.9),
    trueGap: estimate(2.5),
    cosine: estimate(0.912, 0.01),
    chosenLength: 8,
    rejectedLength: 7,
    training: {
      steps: 2,
      tokens: 500,
      first: metrics,
      last: metrics,
      finalLoss: 0.6,
      finalMargin: 0.4,
      finalAccuracy: 0.7,
      finalDpoWeight: 0.4,
      finalGradNorm: 1,
    },
  };
}

function modelResult(folder: string, index: number): ModelResult {
  return {
    model: `M${index}`,
    folder: `${folder}models/M${index}`,
    answersFile: `${folder}evaluation/M${index}.jsonl`,
    trueScore: estimate(2.5 + index / 2),
    heldOutScore: estimate(2.5 + index / 2),
    judgedParts: {},
    winRate: index === 0 ? null : estimate(0.62, 0.05),
    lengthControlledWinRate: index === 0 ? null : estimate(0.59, 0.05),
    winRateBy: "true score",
    answerLength: 8.5,
    judge: judgeQuality(index),
  };
}

function judgeQuality(index: number): JudgeQuality {
  return {
    judge: `M${index}`,
    scale: { min: 0, max: 5 },
    judgements: 300,
    failures: 6,
    failureRate: 0.02,
    failuresByReason: { "no-score": 6 },
    unscored: 0,
    mass: null,
    mean: 2.4,
    variance: 1.5,
    noise: 0.2,
    histogram: [10, 40, 90, 80, 50, 24],
    equalShare: 0.3,
    prompts: 100,
    tieRate: 0.05,
    spearman: 0.66,
    spearmanOwn: 0.61,
  };
}

/** Ever better answers of unchanged length. */
function answerRow(model: string, iteration: number, index: number): AnswerRow {
  return {
    prompt_id: `h${index}`,
    prompt: [{ role: "user", content: `held out ${index} <i>` }],
    text: index === 0 ? "</script><script>alert(2)</script>" : `answer ${index} of ${model}`,
    tokens: 8 + (index % 3),
    finish_reason: index === 1 ? "length" : "stop",
    true_score: 2 + iteration + (index % 2) * 0.5 * iteration,
    judged_score: null,
  };
}

function pairRow(strategyName: string, iteration: number, phase: number, index: number): PairRow {
  return {
    prompt: [{ role: "user", content: `reverse ${strategyName} ${iteration} ${phase} ${index} <i>` }],
    chosen: [{ role: "assistant", content: index === 0 ? "</script><script>alert(1)</script>" : `good ${index}` }],
    rejected: [{ role: "assistant", content: `bad ${index}` }],
    prompt_id: `p${index}`,
    iteration,
    phase,
    chosen_score: 5 - index / 100,
    rejected_score: 1,
    chosen_role: "current",
    rejected_role: "past",
    chosen_model: `M${iteration - 1}`,
    rejected_model: "M0",
    chosen_id: "a",
    rejected_id: "b",
    chosen_true_score: 4,
    rejected_true_score: 1,
  };
}

function stepEvents({ name, iterations }: StrategyResult): EventRow[] {
  return iterations.flatMap(({ iteration, phases }) =>
    phases.flatMap(({ phase, trained }) =>
      [1, 2].map((step) => ({
        event: "step" as const,
        strategy: name,
        iteration,
        phase,
        model: trained,
        step,
        epoch: step / 2,
        loss: 0.69 - step / 10,
        grad_norm: 2,
        learning_rate: 1e-3,
        num_tokens: 100 * step,
        "rewards/margins": step / 5,
        "rewards/accuracies": 0.7,
        "tempora/dpo_weight": 0.5 - step / 10,
      })),
    ),
  );
}
