import { join } from "node:path";
import type { DType, Engine, ModelConfig, PreferenceLoss } from "@tempora/engine";
import type { FileReader } from "@tempora/errors";
import { hashJson, type Json } from "@tempora/errors";
import { checkpointHash, saveCheckpoint } from "@tempora/models";
import { readAllRows, writeJsonl } from "@tempora/text";
import type { Metrics, TrainingSummary } from "@tempora/training";
import {
  deriveSeed,
  type PairIds,
  type ReferenceSums,
  type SupervisedRow,
  scoreReferences,
  trainPreferences,
  trainSupervised,
} from "@tempora/training";
import type { ModelRef } from "../models/model-ref.ts";
import { Meter } from "../results/ledger.ts";
import type { LedgerTotals, TrainingResult } from "../results/results.ts";
import { judgeTemplateFile, templateJson } from "../settings/judge-template.ts";
import type { Settings } from "../settings/settings.ts";
import { manyExampleIds } from "../sources/conversation.ts";
import { type Position, type RunContext, runStage } from "./context.ts";
import { TrainingState } from "./training-state.ts";

/** What a training stage keeps in the store beside model/ and metrics.jsonl. */
export interface TrainedStage {
  hash: string;
  steps: number;
  tokens: number;
  totals: LedgerTotals;
}

/** Reference log-probs of pairs under a model: one scoring pass, kept under the hash of model and pairs. */
export async function referenceStage(
  context: RunContext,
  plan: { model: ModelRef; pairs: readonly PairIds[]; position: Position },
): Promise<{ sums: ReferenceSums[]; totals: LedgerTotals }> {
  const { model, pairs } = plan;
  const { maxTokens, batchPairs, shuffle } = context.settings.training;
  const options = { maxTokens, batchPairs, shuffle, seed: trainingSeed(context, plan.position) };
  const { result } = await runStage(context, {
    kind: "reference",
    label: `reference log-probs of ${model.name}`,
    total: pairs.length,
    unit: "pairs",
    position: plan.position,
    inputs: { model: model.hash, pairs: hashPairs(pairs), options },
    compute: async (_folder, progress) => {
      const { engine } = await context.host.use(model);
      const meter = new Meter(engine.config);
      const sums = await scoreReferences({
        engine,
        rows: pairs,
        options,
        onProgress: (done) => progress(done),
        onForest: (forest) => meter.score(forest),
        signal: context.signal,
      });
      return { sums, totals: meter.totals };
    },
  });
  return result;
}

export interface PreferencePlan {
  start: ModelRef;
  /** Name of the trained model. */
  name: string;
  pairs: readonly (PairIds & { reference: ReferenceSums })[];
  phase: number;
  position: Position;
}

export interface TrainedModel {
  model: ModelRef;
  training: TrainingResult;
  totals: LedgerTotals;
}

/** Equal for all strategies, so that what they train on equal pairs is one stage. */
function trainingSeed(context: RunContext, position: Position): number {
  return deriveSeed(context.settings.seed, "training", position.iteration);
}

/** The settings' loss with its supervised term. */
export function fullLoss(loss: Settings["loss"]): PreferenceLoss {
  const { terms, sftWeight, beta, labelSmoothing, discopopTau } = loss;
  const sft = sftWeight > 0 ? [{ type: "sft" as const, weight: sftWeight }] : [];
  return { terms: [...terms, ...sft], beta, labelSmoothing, discopopTau };
}

/** Trains a model on pairs. An interrupted stage starts again from its start model: the result is the same. */
export async function preferenceStage(context: RunContext, plan: PreferencePlan): Promise<TrainedModel> {
  const { start, pairs } = plan;
  const { settings, host, source } = context;
  const loss = fullLoss(settings.loss);
  const seed = trainingSeed(context, plan.position);
  const { tokenizer, checkpoint } = await host.open(start);
  const replay = await manyExampleIds(source.replay, tokenizer, checkpoint.config.maxPositions, context.signal);
  const { perStep, weight } = settings.replay;
  const replayed = replay.length > 0 && weight > 0;
  const { result, folder, reused } = await runStage<TrainedStage>(context, {
    kind: "preference-training",
    label: `training ${plan.name} from ${start.name}`,
    total: Math.ceil(pairs.length / settings.training.batchPairs) * settings.training.epochs,
    unit: "steps",
    position: plan.position,
    inputs: {
      start: start.hash,
      pairs: hashPairs(pairs),
      references: hashJson(pairs.map(({ reference }) => [reference.chosen, reference.rejected])),
      training: { ...settings.training, seed },
      loss: loss as unknown as Json,
      replay: replayed ? { rows: hashRows(replay), perStep, weight } : null,
      judgeTemplate: templateJson(source.judgeTemplate),
      dtype: host.dtypeOf(checkpoint),
    },
    compute: async (stage, progress) => {
      const { engine } = await host.useForTraining(start);
      const state = await TrainingState.open(stage, settings.saveStateSeconds);
      const meter = new Meter(engine.config, state.totals);
      replayEvents(context, plan, state);
      const summary = await trainPreferences({
        engine,
        rows: pairs,
        options: {
          ...settings.training,
          seed,
          loss,
          ...(replayed ? { replay: { rows: replay, perStep, weight } } : {}),
        },
        onMetrics: (row) => watch(context, plan, row, progress),
        onForest: (forest) => meter.train(forest, settings.training.gradientCheckpointing),
        onStep: (done) => state.afterStep(engine, done, meter.totals),
        resume: state.resume(engine),
        signal: context.signal,
      });
      const { config, raw } = checkpoint;
      return keep(context, stage, {
        engine,
        config,
        raw,
        companion: checkpoint.companion,
        summary,
        state,
        totals: meter.totals,
      });
    },
  });
  const metrics = await readMetrics(join(folder, "metrics.jsonl"));
  if (reused) for (const row of metrics) context.events.append({ event: "step", ...origin(plan), ...row });
  return {
    model: { name: plan.name, folder: join(folder, "model"), hash: result.hash },
    training: summarize(metrics, result),
    totals: result.totals,
  };
}

/** Supervised training from a given model (or from new weights, by `engine`). */
export interface SupervisedPlan {
  name: string;
  label: string;
  /** Number of rows. */
  count: number;
  /** What decides the rows and the weights to start from. */
  inputs: Record<string, Json>;
  /** The rows, and the engine with the weights to start from. */
  begin(): Promise<{
    engine: Engine;
    rows: readonly SupervisedRow[];
    config: ModelConfig;
    raw: Record<string, unknown>;
    companion?: FileReader;
    files?: Record<string, string>;
  }>;
}

export async function supervisedStage(
  context: RunContext,
  plan: SupervisedPlan,
): Promise<{ model: ModelRef; metrics: Metrics[]; stage: TrainedStage }> {
  const { settings, source } = context;
  const options = { ...settings.start.training, seed: deriveSeed(settings.seed, "start") };
  const position = { strategy: null, iteration: 0 };
  const { result, folder, reused } = await runStage<TrainedStage>(context, {
    kind: "supervised-training",
    label: plan.label,
    total: Math.ceil(plan.count / options.batchPairs) * options.epochs,
    unit: "steps",
    position,
    inputs: {
      ...plan.inputs,
      training: { ...options },
      judgeTemplate: templateJson(source.judgeTemplate),
    },
    compute: async (stage, progress) => {
      const begun = await plan.begin();
      const { engine } = begun;
      const state = await TrainingState.open(stage, settings.saveStateSeconds);
      const meter = new Meter(engine.config, state.totals);
      replayEvents(context, { name: plan.name, phase: 0, position }, state);
      const summary = await trainSupervised({
        engine,
        rows: begun.rows,
        options,
        onMetrics: (row) => watch(context, { name: plan.name, phase: 0, position }, row, progress),
        onForest: (forest) => meter.train(forest, options.gradientCheckpointing),
        onStep: (done) => state.afterStep(engine, done, meter.totals),
        resume: state.resume(engine),
        signal: context.signal,
      });
      return keep(context, stage, { ...begun, summary, state, totals: meter.totals });
    },
  });
  const metrics = await readMetrics(join(folder, "metrics.jsonl"));
  const place = { strategy: null, iteration: 0, phase: 0, model: plan.name };
  if (reused) for (const row of metrics) context.events.append({ event: "step", ...place, ...row });
  return { model: { name: plan.name, folder: join(folder, "model"), hash: result.hash }, metrics, stage: result };
}

function origin(plan: { name: string; phase: number; position: Position }) {
  return { ...plan.position, phase: plan.phase, model: plan.name };
}

/** Steps that an earlier process did: their events come first, as if they had been done now. */
function replayEvents(
  context: RunContext,
  plan: { name: string; phase: number; position: Position },
  state: TrainingState,
): void {
  for (const row of state.metrics) context.events.append({ event: "step", ...origin(plan), ...row });
}

function watch(
  context: RunContext,
  plan: { name: string; phase: number; position: Position },
  row: Metrics,
  progress: (done: number, extra?: Record<string, number>) => void,
): void {
  context.events.append({ event: "step", ...origin(plan), ...row });
  const margin = row["rewards/margins"];
  progress(row.step, {
    loss: row.loss,
    ...(margin === undefined ? {} : { margin }),
    grad_norm: row.grad_norm,
  });
}

interface Kept {
  engine: Engine;
  config: ModelConfig;
  raw: Record<string, unknown>;
  companion?: FileReader;
  files?: Record<string, string>;
  summary: TrainingSummary;
  state: TrainingState;
  totals: LedgerTotals;
}

/** Writes the trained model and its metrics, and gives the optimizer's memory back. */
async function keep(context: RunContext, stage: string, kept: Kept): Promise<TrainedStage> {
  const { engine, config, raw, companion, files, summary, totals } = kept;
  const model = join(stage, "model");
  const dtype: DType = engine.dtype;
  await engine.resetOptimizer();
  await saveCheckpoint(model, {
    config,
    raw,
    dtype,
    tensors: engine.tensors(),
    ...(companion === undefined ? {} : { companion }),
    files: { ...files, ...templateFile(context) },
  });
  await writeJsonl(join(stage, "metrics.jsonl"), summary.metrics);
  await kept.state.remove();
  return { hash: await checkpointHash(model), steps: summary.steps, tokens: summary.tokens, totals };
}

async function readMetrics(file: string): Promise<Metrics[]> {
  return (await readAllRows(file)).map(({ value }) => value as unknown as Metrics);
}

function hashPairs(pairs: readonly PairIds[]): string {
  return hashJson(pairs.map(({ promptIds, chosenIds, rejectedIds }) => [promptIds, chosenIds, rejectedIds]));
}

function hashRows(rows: readonly SupervisedRow[]): string {
  return hashJson(rows.map(({ promptIds, completionIds }) => [promptIds, completionIds]));
}

/** First and last step, and means over the last quarter of the steps. */
function summarize(metrics: readonly Metrics[], { steps, tokens }: TrainedStage): TrainingResult {
  const last = metrics.slice(-Math.max(1, Math.floor(metrics.length / 4)));
  const mean = (value: (row: Metrics) => number | undefined) =>
    last.reduce((sum, row) => sum + (value(row) ?? 0), 0) / last.length;
  return {
    steps,
    tokens,
    first: metrics[0] as Metrics,
    last: metrics[metrics.length - 1] as Metrics,
    finalLoss: mean((row) => row.loss),
    finalMargin: mean((row) => row["rewards/margins"]),
    finalAccuracy: mean((row) => row["rewards/accuracies"]),
    finalDpoWeight: mean((row) => row["tempora/dpo_weight"]),
    finalGradNorm: mean((row) => row.grad_norm),
  };
}

/** The judge's instruction goes with the model that was trained with it. */
function templateFile({ source }: RunContext): Record<string, string> {
  if (source.judgeTemplate === null) return {};
  return { [judgeTemplateFile]: `${JSON.stringify(source.judgeTemplate, null, 2)}\n` };
}
