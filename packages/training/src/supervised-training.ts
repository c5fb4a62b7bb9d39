import type { Forest } from "@tempora/engine";
import type { Place } from "@tempora/errors";
import { type PackItem, packForests } from "./batches.ts";
import type { TrainableEngine } from "./trainable-engine.ts";
import type { TrainingOptions, TrainingSummary } from "./training-options.ts";
import { runSteps, type TrainingHooks } from "./training-steps.ts";

export interface SupervisedRow {
  promptIds: readonly number[];
  completionIds: readonly number[];
  where?: Place;
}

export interface SupervisedTraining extends TrainingHooks {
  engine: TrainableEngine;
  rows: readonly SupervisedRow[];
  /** batchPairs counts rows here. */
  options: TrainingOptions;
  /** Called with every forest that is trained on. */
  onForest?(forest: Forest): void;
}

/**
 * Supervised fine-tuning: the token mean over all completion tokens of an optimizer batch, as the Hugging Face Trainer
 * takes it over its accumulation steps. The engine's weights change in place; its optimizer state is reset before.
 */
export async function trainSupervised(training: SupervisedTraining): Promise<TrainingSummary> {
  const { engine, rows, options, signal } = training;
  const items = rows.map(supervisedItem);
  return runSteps({
    engine,
    rows: rows.length,
    options,
    hooks: training,
    accumulate: async (batch) => {
      const chosen = batch.map((index) => items[index] as PackItem);
      const { loss, forestTokens } = await accumulateSupervised(engine, chosen, 1, options, training.onForest, signal);
      const sequenceTokens = chosen.reduce(
        (sum, item) => sum + item.promptIds.length + (item.completions[0]?.length ?? 0),
        0,
      );
      return { loss, sequenceTokens, computedTokens: forestTokens };
    },
  });
}

/** A row as the packing takes it: a prompt with one completion. */
export function supervisedItem(row: SupervisedRow): PackItem {
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
  options: Pick<TrainingOptions, "maxTokens" | "gradientCheckpointing">,
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
      checkpointing: options.gradientCheckpointing,
      signal,
    });
    loss += result.loss;
    forestTokens += micro.forest.tokens.length;
    onForest?.(micro.forest);
  }
  return { loss: loss / weight, forestTokens };
}
