import type { Forest } from "@tempora/engine";
import type { Place } from "@tempora/errors";
import { optimizerBatches, type PackItem, packForests } from "./batches.ts";
import type { Metrics } from "./metrics.ts";
import { deriveSeed, permutation } from "./random.ts";
import { scheduleFactor } from "./schedules.ts";
import { optimize, type TrainableEngine, type TrainingOptions, type TrainingSummary } from "./training-face.ts";

export interface SupervisedRow {
  promptIds: readonly number[];
  completionIds: readonly number[];
  where?: Place;
}

export interface SupervisedTraining {
  engine: TrainableEngine;
  rows: readonly SupervisedRow[];
  /** batchPairs counts rows here. */
  options: TrainingOptions;
  onMetrics?(metrics: Metrics): void | Promise<void>;
  onForest?(forest: Forest): void;
  signal?: AbortSignal | undefined;
}

/**
 * Supervised fine-tuning: the token mean over all completion tokens of an optimizer batch, as the Hugging Face Trainer
 * takes it over its accumulation steps. The engine's weights change in place; its optimizer state is reset before.
 */
export async function trainSupervised(training: SupervisedTraining): Promise<TrainingSummary> {
  const { engine, rows, options, signal } = training;
  const items = rows.map(toItem);
  const stepsPerEpoch = Math.ceil(rows.length / options.batchPairs);
  const total = stepsPerEpoch * options.epochs;
  const metrics: Metrics[] = [];
  let seen = 0;
  let computed = 0;
  let step = 0;
  await engine.resetOptimizer();
  for (let epoch = 0; epoch < options.epochs; epoch++) {
    let rowsDone = 0;
    for (const batch of optimizerBatches(epochOrder(rows.length, options, epoch), options.batchPairs)) {
      signal?.throwIfAborted();
      const chosen = batch.map((index) => items[index] as PackItem);
      const { loss, forestTokens } = await accumulateSupervised(engine, chosen, 1, options, training.onForest, signal);
      const learningRate = options.learningRate * scheduleFactor(options.scheduler, step, total, options.warmupSteps);
      const gradNorm = await optimize(engine, options, step + 1, learningRate);
      step++;
      rowsDone += batch.length;
      computed += forestTokens;
      for (const item of chosen) seen += item.promptIds.length + (item.completions[0]?.length ?? 0);
      const row: Metrics = {
        step,
        epoch: epoch + rowsDone / rows.length,
        loss,
        grad_norm: gradNorm,
        learning_rate: learningRate,
        num_tokens: seen,
      };
      metrics.push(row);
      await training.onMetrics?.(row);
    }
  }
  return { steps: step, tokens: computed, metrics };
}

/** The order of the rows in one epoch. */
export function epochOrder(count: number, options: TrainingOptions, epoch: number): number[] {
  if (!options.shuffle) return Array.from({ length: count }, (_, index) => index);
  return permutation(count, deriveSeed(options.seed, "epoch", epoch));
}

export function toItem(row: SupervisedRow): PackItem {
  return {
    promptIds: row.promptIds,
    completions: [row.completionIds],
    ...(row.where === undefined ? {} : { where: row.where }),
  };
}

/** Adds the gradient of weight × the token-mean loss of the items. Returns that mean, before its weight. */
export async function accumulateSupervised(
  engine: TrainableEngine,
  items: readonly PackItem[],
  weight: number,
  options: Pick<TrainingOptions, "maxTokens" | "checkpointing">,
  onForest: ((forest: Forest) => void) | undefined,
  signal: AbortSignal | undefined,
): Promise<{ loss: number; forestTokens: number }> {
  const tokens = items.reduce((sum, item) => sum + (item.completions[0]?.length ?? 0), 0);
  const limits = { maxTokens: options.maxTokens, maxPositions: engine.config.maxPositions };
  let loss = 0;
  let forestTokens = 0;
  for (const micro of packForests(items, limits)) {
    const result = await engine.supervisedStep(micro.forest, {
      weight: weight / tokens,
      checkpointing: options.checkpointing,
      signal,
    });
    loss += result.loss;
    forestTokens += micro.forest.tokens.length;
    onForest?.(micro.forest);
  }
  return { loss: loss / weight, forestTokens };
}
