import { optimizerBatches } from "./batches.ts";
import type { Metrics } from "./metrics.ts";
import { deriveSeed, permutation } from "./random.ts";
import { scheduleFactor } from "./schedules.ts";
import type { TrainableEngine } from "./trainable-engine.ts";
import type { TrainingOptions, TrainingSummary } from "./training-options.ts";

/**
 * Where a training stands after a step; with the weights and the optimizer's state, all that it needs to go on. The
 * metrics of its steps are told to onMetrics, once.
 */
export interface TrainingProgress {
  /** Optimizer steps done. */
  step: number;
  /** Tokens of all sequences seen, prompt + completion. */
  seen: number;
  /** Tokens computed, shared prompts once. */
  computed: number;
}

/** What a caller may attach to any training. */
export interface TrainingHooks {
  onMetrics?(metrics: Metrics): void | Promise<void>;
  /** After every step, when the engine's state is that of `progress`. */
  onStep?(progress: TrainingProgress): Promise<void>;
  /** Goes on from an earlier state: `restore` puts weights and optimizer state into the engine. */
  resume?: { progress: TrainingProgress; restore(): Promise<void> } | undefined;
  signal?: AbortSignal | undefined;
}

/** What one step's forward and backward passes gave. */
export interface StepWork {
  loss: number;
  sequenceTokens: number;
  computedTokens: number;
  metrics?: Partial<Metrics>;
}

export interface StepPlan {
  engine: TrainableEngine;
  rows: number;
  options: TrainingOptions;
  hooks: TrainingHooks;
  /** Called for a step that an earlier process did. */
  skip?(): void;
  /** Accumulates the gradients of one optimizer step. */
  accumulate(batch: readonly number[]): Promise<StepWork>;
}

/** The order of the rows in one epoch. */
export function epochOrder(count: number, options: Pick<TrainingOptions, "shuffle" | "seed">, epoch: number): number[] {
  if (!options.shuffle) return Array.from({ length: count }, (_, index) => index);
  return permutation(count, deriveSeed(options.seed, "epoch", epoch));
}

/** Steps through all epochs: accumulate, AdamW, metrics. The optimizer's state is reset before. */
export async function runSteps(plan: StepPlan): Promise<TrainingSummary> {
  const { engine, rows, options, hooks } = plan;
  const total = Math.ceil(rows / options.batchPairs) * options.epochs;
  const begun = hooks.resume?.progress.step ?? 0;
  const progress: TrainingProgress = { ...(hooks.resume?.progress ?? { step: 0, seen: 0, computed: 0 }) };
  let number = 0;
  await engine.resetOptimizer();
  await hooks.resume?.restore();
  for (let epoch = 0; epoch < options.epochs; epoch++) {
    let rowsDone = 0;
    for (const batch of optimizerBatches(epochOrder(rows, options, epoch), options.batchPairs)) {
      rowsDone += batch.length;
      if (number++ < begun) {
        plan.skip?.();
        continue;
      }
      hooks.signal?.throwIfAborted();
      const work = await plan.accumulate(batch);
      const row = await optimize(plan, progress, work, total, epoch + rowsDone / rows);
      progress.step = row.step;
      progress.seen = row.num_tokens;
      progress.computed += work.computedTokens;
      await hooks.onMetrics?.(row);
      await hooks.onStep?.(progress);
    }
  }
  return { steps: progress.step, tokens: progress.computed };
}

async function optimize(
  plan: StepPlan,
  before: TrainingProgress,
  work: StepWork,
  total: number,
  epoch: number,
): Promise<Metrics> {
  const { engine, options } = plan;
  const factor = scheduleFactor(options.scheduler, before.step, total, options.warmupSteps);
  const learningRate = options.learningRate * factor;
  const step = before.step + 1;
  const { gradNorm } = await engine.optimizerStep({
    learningRate,
    betas: options.betas ?? [0.9, 0.999],
    epsilon: options.epsilon ?? 1e-8,
    weightDecay: options.weightDecay,
    maxGradNorm: options.maxGradNorm,
    seed: options.seed + step,
  });
  return {
    step,
    epoch,
    loss: work.loss,
    grad_norm: gradNorm,
    learning_rate: learningRate,
    num_tokens: before.seen + work.sequenceTokens,
    ...work.metrics,
  };
}
