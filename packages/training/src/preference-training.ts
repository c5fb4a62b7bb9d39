import { couplesPairs, type Forest, type PreferenceLoss, preferenceLoss } from "@tempora/engine";
import type { Place } from "@tempora/errors";
import { type MicroBatch, optimizerBatches, type PackItem, packForests } from "./batches.ts";
import type { Metrics } from "./metrics.ts";
import { deriveSeed, permutation } from "./random.ts";
import { type ScoredCompletion, type ScoringEngine, scoreRows } from "./scoring.ts";
import { accumulateSupervised, type SupervisedRow, supervisedItem } from "./supervised-training.ts";
import type { TrainableEngine } from "./trainable-engine.ts";
import type { TrainingOptions, TrainingSummary } from "./training-options.ts";
import { epochOrder, runSteps, type TrainingHooks } from "./training-steps.ts";

export interface PairIds {
  promptIds: readonly number[];
  chosenIds: readonly number[];
  rejectedIds: readonly number[];
  where?: Place;
}

/** Summed log-probs of both completions under the reference model. */
export interface ReferenceSums {
  chosen: number;
  rejected: number;
}

/** Supervised rows mixed into every preference step, so that what they taught is not forgotten. */
export interface Replay {
  rows: readonly SupervisedRow[];
  /** Rows in each optimizer step. */
  perStep: number;
  /** Weight of their token-mean loss beside the preference loss. */
  weight: number;
}

export interface PreferenceTraining extends TrainingHooks {
  engine: TrainableEngine & ScoringEngine;
  rows: readonly (PairIds & { reference?: ReferenceSums })[];
  options: TrainingOptions & { loss: PreferenceLoss; replay?: Replay };
  /** Progress of the scoring pass over rows that bring no reference. */
  onReference?(done: number, total: number): void;
  /** Called with every forest that is trained on. */
  onForest?(forest: Forest): void;
}

/**
 * DPO and its relatives. Rows without reference log-probs are scored once by the engine as it is at the start: policy =
 * reference. A step's loss is the mean over its batchPairs pairs, however they are packed. The engine's weights change
 * in place; its optimizer state is reset before. `loss` in the metrics is the preference loss with its sft terms,
 * without replay.
 */
export async function trainPreferences(training: PreferenceTraining): Promise<TrainingSummary> {
  const { engine, rows, options } = training;
  const references = await referenceSums(training);
  const items: PackItem[] = rows.map((row) => pairItem(row));
  const replay = options.replay === undefined ? null : replayRows(options.replay, options.seed);
  return runSteps({
    engine,
    rows: rows.length,
    options,
    hooks: training,
    skip: () => replay?.next(),
    accumulate: async (batch) => {
      const result = await accumulatePairs(training, items, references, batch);
      const replayed = await accumulateReplay(training, replay);
      return {
        loss: result.loss,
        sequenceTokens: result.sequenceTokens,
        computedTokens: result.forestTokens + (replayed?.forestTokens ?? 0),
        metrics: {
          ...pairMetrics(result.sums, options.loss.beta),
          ...(replayed === null ? {} : { "tempora/replay_loss": replayed.loss }),
        },
      };
    },
  });
}

export function pairItem(row: PairIds): PackItem {
  return {
    promptIds: row.promptIds,
    completions: [row.chosenIds, row.rejectedIds],
    ...(row.where === undefined ? {} : { where: row.where }),
  };
}

export interface ReferenceScoring {
  engine: ScoringEngine;
  rows: readonly PairIds[];
  options: Pick<TrainingOptions, "batchPairs" | "maxTokens" | "shuffle" | "seed">;
  onProgress?: ((done: number, total: number) => void) | undefined;
  /** Told the sums of each pair, by its index, as soon as they are known. */
  onSums?: ((pair: number, sums: ReferenceSums) => Promise<void>) | undefined;
  onForest?: ((forest: Forest) => void) | undefined;
  signal?: AbortSignal | undefined;
}

/**
 * Reference log-probs of pairs in one pass, packed as the first epoch will pack them: the last bits of a sum depend on its
 * neighbours in a forest, and this way a model that is its own reference starts with rewards of exactly zero.
 */
export async function scoreReferences(scoring: ReferenceScoring): Promise<ReferenceSums[]> {
  const { engine, rows, options } = scoring;
  const sums = new Array<ReferenceSums>(rows.length);
  let done = 0;
  for (const batch of optimizerBatches(epochOrder(rows.length, options, 0), options.batchPairs)) {
    const scored = await scoreRows(
      engine,
      batch.map((index) => pairItem(rows[index] as PairIds)),
      { maxTokens: options.maxTokens, onForest: scoring.onForest, signal: scoring.signal },
    );
    for (const [position, index] of batch.entries()) {
      const [chosen, rejected] = scored[position] as [ScoredCompletion, ScoredCompletion];
      sums[index] = { chosen: chosen.sum, rejected: rejected.sum };
      await scoring.onSums?.(index, sums[index]);
    }
    done += batch.length;
    scoring.onProgress?.(done, rows.length);
  }
  return sums;
}

/** The rows' own references, or those of the engine as it is. */
async function referenceSums(training: PreferenceTraining): Promise<ReferenceSums[]> {
  const { engine, rows, options, signal } = training;
  const given = rows.map(({ reference }) => reference);
  if (given.every((reference) => reference !== undefined)) return given;
  const scored = await scoreReferences({ engine, rows, options, onProgress: training.onReference, signal });
  return given.map((reference, index) => reference ?? (scored[index] as ReferenceSums));
}

/** Policy and reference sums of one pair of a step, with its lengths. */
interface PairSums extends ReferenceSums {
  policyChosen: number;
  policyRejected: number;
  chosenLength: number;
  rejectedLength: number;
}

interface StepResult {
  loss: number;
  sums: PairSums[];
  forestTokens: number;
  sequenceTokens: number;
}

async function accumulatePairs(
  training: PreferenceTraining,
  items: readonly PackItem[],
  references: readonly ReferenceSums[],
  batch: readonly number[],
): Promise<StepResult> {
  const { engine, options } = training;
  const stepItems = batch.map((index) => items[index] as PackItem);
  const micros = packForests(stepItems, { maxTokens: options.maxTokens, maxPositions: engine.config.maxPositions });
  const sums: PairSums[] = batch.map((index, position) => ({
    ...(references[index] as ReferenceSums),
    policyChosen: 0,
    policyRejected: 0,
    chosenLength: completionLength(stepItems[position] as PackItem, 0),
    rejectedLength: completionLength(stepItems[position] as PackItem, 1),
  }));
  const coupled = couplesPairs(options.loss) && micros.length > 1;
  const loss = coupled
    ? await accumulateCoupled(training, micros, sums)
    : await accumulateApart(training, micros, sums);
  let forestTokens = 0;
  for (const micro of micros) {
    forestTokens += micro.forest.tokens.length;
    training.onForest?.(micro.forest);
  }
  const sequenceTokens = stepItems.reduce(
    (total, item) => total + 2 * item.promptIds.length + completionLength(item, 0) + completionLength(item, 1),
    0,
  );
  return { loss, sums, forestTokens, sequenceTokens };
}

function completionLength(item: PackItem, side: 0 | 1): number {
  return (item.completions[side] as readonly number[]).length;
}

/** Each micro-batch computes its own share of the batch mean. */
async function accumulateApart(
  training: PreferenceTraining,
  micros: readonly MicroBatch[],
  sums: PairSums[],
): Promise<number> {
  const { engine, options, signal } = training;
  const totalChosenTokens = sums.reduce((total, pair) => total + pair.chosenLength, 0);
  let loss = 0;
  for (const micro of micros) {
    const pairs = micro.items.map((item, position) => {
      const [chosen, rejected] = micro.leaves[position] as [number, number];
      const pair = sums[item] as PairSums;
      return { chosen, rejected, referenceChosen: pair.chosen, referenceRejected: pair.rejected };
    });
    const result = await engine.preferenceStep(micro.forest, pairs, options.loss, {
      totalPairs: sums.length,
      totalChosenTokens,
      checkpointing: options.gradientCheckpointing,
      signal,
    });
    loss += result.loss;
    result.pairs.forEach((pair, position) => {
      const sum = sums[micro.items[position] as number] as PairSums;
      sum.policyChosen = pair.chosenLogProb;
      sum.policyRejected = pair.rejectedLogProb;
    });
  }
  return loss;
}

/**
 * A loss that sorts over the batch needs every pair's log-probs before any gradient: one scoring pass over the
 * micro-batches, then each is accumulated with its exact coefficients.
 */
async function accumulateCoupled(
  training: PreferenceTraining,
  micros: readonly MicroBatch[],
  sums: PairSums[],
): Promise<number> {
  const { engine, options, signal } = training;
  for (const micro of micros) {
    const { node } = await engine.logProbs(micro.forest, { signal });
    micro.items.forEach((item, position) => {
      const [chosen, rejected] = micro.leaves[position] as [number, number];
      const sum = sums[item] as PairSums;
      sum.policyChosen = node[chosen] as number;
      sum.policyRejected = node[rejected] as number;
    });
  }
  const { pairLosses, dChosen, dRejected } = preferenceLoss(options.loss, {
    policyChosen: Float64Array.from(sums, (pair) => pair.policyChosen),
    policyRejected: Float64Array.from(sums, (pair) => pair.policyRejected),
    referenceChosen: Float64Array.from(sums, (pair) => pair.chosen),
    referenceRejected: Float64Array.from(sums, (pair) => pair.rejected),
    chosenLengths: Int32Array.from(sums, (pair) => pair.chosenLength),
    rejectedLengths: Int32Array.from(sums, (pair) => pair.rejectedLength),
  });
  for (const micro of micros) {
    const coefficients = new Float32Array(micro.forest.tokens.length);
    micro.items.forEach((item, position) => {
      const [chosen, rejected] = micro.leaves[position] as [number, number];
      const start = micro.forest.nodeStart;
      coefficients.fill(dChosen[item] as number, start[chosen], start[chosen + 1]);
      coefficients.fill(dRejected[item] as number, start[rejected], start[rejected + 1]);
    });
    await engine.accumulate(micro.forest, coefficients, {
      checkpointing: options.gradientCheckpointing,
      signal,
    });
  }
  return pairLosses.reduce((total, loss) => total + loss, 0) / sums.length;
}

/** An endless supply of replay rows: shuffled anew each time they run out. */
function replayRows(replay: Replay, seed: number): { next(): PackItem[] } {
  const items = replay.rows.map(supervisedItem);
  let round = 0;
  let queue: number[] = [];
  return {
    next() {
      const taken: PackItem[] = [];
      while (taken.length < Math.min(replay.perStep, items.length)) {
        if (queue.length === 0) queue = permutation(items.length, deriveSeed(seed, "replay", round++));
        taken.push(items[queue.pop() as number] as PackItem);
      }
      return taken;
    },
  };
}

async function accumulateReplay(
  training: PreferenceTraining,
  replay: { next(): PackItem[] } | null,
): Promise<{ loss: number; forestTokens: number } | null> {
  const { engine, options, signal } = training;
  if (replay === null || options.replay === undefined || options.replay.weight === 0) return null;
  const items = replay.next();
  if (items.length === 0) return null;
  return accumulateSupervised(engine, items, options.replay.weight, options, training.onForest, signal);
}

/** TRL's metrics of a step (DPOTrainer): rewards are β × (policy − reference) of the sums, accuracy is strict. */
export function pairMetrics(sums: readonly PairSums[], beta: number): Partial<Metrics> {
  const mean = (value: (pair: PairSums) => number) => sums.reduce((sum, pair) => sum + value(pair), 0) / sums.length;
  const chosen = (pair: PairSums) => beta * (pair.policyChosen - pair.chosen);
  const rejected = (pair: PairSums) => beta * (pair.policyRejected - pair.rejected);
  const margin = (pair: PairSums) => chosen(pair) - rejected(pair);
  return {
    "rewards/chosen": mean(chosen),
    "rewards/rejected": mean(rejected),
    "rewards/accuracies": mean((pair) => (chosen(pair) > rejected(pair) ? 1 : 0)),
    "rewards/margins": mean(margin),
    "logps/chosen": mean((pair) => pair.policyChosen),
    "logps/rejected": mean((pair) => pair.policyRejected),
    "tempora/dpo_weight": mean((pair) => 1 / (1 + Math.exp(margin(pair)))),
    "tempora/chosen_length": mean((pair) => pair.chosenLength),
    "tempora/rejected_length": mean((pair) => pair.rejectedLength),
  };
}
