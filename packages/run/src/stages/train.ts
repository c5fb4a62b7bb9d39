import { join } from "node:path";
import { type DType, type Engine, type ModelConfig, oneAtATime, type PreferenceLoss } from "@tempora/engine";
import type { FileReader, Json } from "@tempora/errors";
import { saveAdapter, saveCheckpoint } from "@tempora/models";
import { writeWhole } from "@tempora/text";
import type { Metrics, TrainingSummary } from "@tempora/training";
import {
  deriveSeed,
  type ReferenceSums,
  type SupervisedRow,
  trainPreferences,
  trainSupervised,
} from "@tempora/training";
import { type FileHashes, fileHashes } from "../models/file-hashes.ts";
import { adaptedModel, baseOf, type ModelRef, wholeModel } from "../models/model-ref.ts";
import { Meter } from "../results/ledger.ts";
import type { LedgerTotals, TrainingResult } from "../results/results.ts";
import { judgeTemplateFile, templateJson } from "../settings/judge-template.ts";
import type { Settings } from "../settings/settings.ts";
import { manyExampleIds } from "../sources/conversation.ts";
import { ContentHash } from "../store/content-hash.ts";
import { type SealedRows, sealedRows } from "../store/row-log.ts";
import { type Position, type RunContext, runStage } from "./context.ts";
import { type Learner, learnerFrom } from "./learner.ts";
import type { PairSet } from "./pair-set.ts";
import { type References, trainingSeed } from "./reference.ts";
import { TrainingState } from "./training-state.ts";

/** What a training stage keeps in the store beside model/. */
export interface TrainedStage {
  hash: string;
  steps: number;
  tokens: number;
  totals: LedgerTotals;
  metrics: SealedRows;
  /** Of model/. */
  files: FileHashes;
}

export interface PreferencePlan {
  start: ModelRef;
  /** Name of the trained model. */
  name: string;
  pairs: PairSet;
  reference: References;
  phase: number;
  position: Position;
  /** Whether the model is only a step on the way to the next one. */
  temporary?: boolean;
}

export interface TrainedModel {
  model: ModelRef;
  training: TrainingResult;
  totals: LedgerTotals;
}

/** The settings' loss with its supervised term. */
export function fullLoss(loss: Settings["loss"]): PreferenceLoss {
  const { terms, sftWeight, beta, labelSmoothing, discopopTau } = loss;
  const sft = sftWeight > 0 ? [{ type: "sft" as const, weight: sftWeight }] : [];
  return { terms: [...terms, ...sft], beta, labelSmoothing, discopopTau };
}

/** Trains a model on pairs. An interrupted stage starts again from its start model: the result is the same. */
export async function preferenceStage(context: RunContext, plan: PreferencePlan): Promise<TrainedModel> {
  const { start, pairs, reference } = plan;
  const { settings, host, source } = context;
  const loss = fullLoss(settings.loss);
  const seed = trainingSeed(context, plan.position);
  const learner = await learnerFrom(start, settings);
  const { checkpoint } = await host.open(start);
  const replay = await replayRows(context, start);
  const { perStep, weight } = settings.replay;
  const replayed = replay.length > 0 && weight > 0;
  const { result, folder, reused } = await runStage<TrainedStage>(context, {
    kind: "preference-training",
    label: `training ${plan.name} from ${start.name}`,
    temporary: plan.temporary ?? false,
    training: { phase: plan.phase, name: plan.name },
    total: Math.ceil(pairs.list.length / settings.training.batchPairs) * settings.training.epochs,
    unit: "steps",
    position: plan.position,
    inputs: {
      start: start.hash,
      pairs: pairs.hash,
      references: reference.hash,
      training: { ...settings.training, seed },
      loss: loss as unknown as Json,
      replay: replayed ? { rows: hashRows(replay), perStep, weight } : null,
      judgeTemplate: templateJson(source.judgeTemplate),
      adapter: learnerKey(learner),
      moments: settings.engine.moments,
      dtype: host.dtypeOf(checkpoint),
    },
    counts: TrainingState.remove,
    compute: async (stage, progress) => {
      const { engine, endTokens } = await host.useForTraining(start, learner && { config: learner.config, seed });
      await using state = await TrainingState.open(stage, settings.saveStateSeconds, (text) =>
        context.observer.note(text),
      );
      const meter = new Meter(engine.config, state.totals);
      replayEvents(context, plan, state);
      const summary = await trainPreferences({
        engine,
        rows: pairs.list.map((pair, k) => ({ ...pair, reference: reference.sums[k] as ReferenceSums })),
        options: {
          ...settings.training,
          seed,
          loss,
          ...(replayed ? { replay: { rows: replay, perStep, weight } } : {}),
        },
        onMetrics: watchSteps(context, plan, { state, progress }),
        onForest: (forest) => meter.train(forest, passes(settings.training, learner)),
        onStep: (done) => state.afterStep(engine, done, meter.totals),
        resume: state.resume(engine),
        signal: context.signal,
      });
      const { config, raw, companion } = checkpoint;
      const model = { engine, config, raw, companion, endTokens, learner, state, totals: meter.totals };
      const saved = await saveTrained(context, stage, { ...model, summary });
      await host.trained(start, saved.hash);
      return saved;
    },
  });
  const saved = { name: plan.name, folder: join(folder, "model"), hash: result.hash, files: result.files };
  return {
    model: await trainedModel(context, start, saved),
    training: summarize(await readMetrics(context, plan, { folder, result, reused }, 1 / 4), result),
    totals: result.totals,
  };
}

/** A model of the store that was trained from this one, or from one that was. */
export async function trainedModel(
  { settings }: RunContext,
  start: ModelRef,
  saved: Pick<ModelRef, "name" | "folder" | "hash" | "files">,
): Promise<ModelRef> {
  const base = (await learnerFrom(start, settings))?.base ?? null;
  return { ...saved, base, kin: start.kin ?? baseOf(start) };
}

/** The source's graded examples, as the model reads them. */
async function replayRows({ host, source, now, signal }: RunContext, start: ModelRef): Promise<SupervisedRow[]> {
  const { tokenizer, checkpoint } = await host.open(start);
  return manyExampleIds(source.replay, tokenizer, { maxLength: checkpoint.config.maxPositions, now }, signal);
}

/** Supervised training from a given model (or from new weights, by `engine`). */
export interface SupervisedPlan {
  name: string;
  label: string;
  /** Number of rows. */
  count: number;
  /** What decides the rows and the weights to start from. */
  inputs: Record<string, Json>;
  /** The adapter that is trained; null: the whole model. */
  learner: Learner | null;
  /** The rows, and the engine with the weights to start from. */
  begin(): Promise<{
    engine: Engine;
    rows: readonly SupervisedRow[];
    config: ModelConfig;
    raw: Record<string, unknown>;
    companion?: FileReader;
    endTokens?: readonly number[];
    files?: Record<string, string>;
  }>;
}

export async function supervisedStage(
  context: RunContext,
  plan: SupervisedPlan,
): Promise<{ model: ModelRef; finalLoss: number; stage: TrainedStage }> {
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
      adapter: learnerKey(plan.learner),
      moments: settings.engine.moments,
      judgeTemplate: templateJson(source.judgeTemplate),
    },
    counts: TrainingState.remove,
    compute: async (stage, progress) => {
      const begun = await plan.begin();
      const { engine } = begun;
      await using state = await TrainingState.open(stage, settings.saveStateSeconds, (text) =>
        context.observer.note(text),
      );
      const meter = new Meter(engine.config, state.totals);
      replayEvents(context, { name: plan.name, phase: 0, position }, state);
      const summary = await trainSupervised({
        engine,
        rows: begun.rows,
        options,
        onMetrics: watchSteps(context, { name: plan.name, phase: 0, position }, { state, progress }),
        onForest: (forest) => meter.train(forest, passes(options, plan.learner)),
        onStep: (done) => state.afterStep(engine, done, meter.totals),
        resume: state.resume(engine),
        signal: context.signal,
      });
      const { learner } = plan;
      return saveTrained(context, stage, { ...begun, learner, summary, state, totals: meter.totals });
    },
  });
  const place = { name: plan.name, phase: 0, position };
  const { end } = await readMetrics(context, place, { folder, result, reused }, 1 / 20);
  const finalLoss = meanOf(end, ({ loss }) => loss);
  const base = plan.learner?.base ?? null;
  const { hash, files } = result;
  return { model: { name: plan.name, folder: join(folder, "model"), hash, files, base }, finalLoss, stage: result };
}

/** Of a stage's key. The base is part of the start's hash. */
function learnerKey(learner: Learner | null): Json {
  return learner === null ? null : (learner.raw as Json);
}

function passes({ gradientCheckpointing: checkpointing }: Settings["training"], learner: Learner | null) {
  return { checkpointing, frozen: learner !== null };
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

interface Watched {
  state: TrainingState;
  progress(done: number, extra?: Record<string, number>): void;
}

/** Logs each step and shows it, with the tokens a second that this process has trained on. */
function watchSteps(
  context: RunContext,
  plan: { name: string; phase: number; position: Position },
  { state, progress }: Watched,
): (row: Metrics) => Promise<void> {
  const begun = performance.now();
  const before = state.metrics.at(-1)?.num_tokens ?? 0;
  return async (row) => {
    await state.log.add(row);
    context.events.append({ event: "step", ...origin(plan), ...row });
    const margin = row["rewards/margins"];
    progress(row.step, {
      loss: row.loss,
      ...(margin === undefined ? {} : { margin }),
      grad_norm: row.grad_norm,
      "tokens/s": (1000 * (row.num_tokens - before)) / (performance.now() - begun),
    });
  };
}

interface Trained {
  engine: Engine;
  config: ModelConfig;
  raw: Record<string, unknown>;
  companion?: FileReader;
  /** Ids that end an answer in this run; what the saved model's files are to state. */
  endTokens?: readonly number[];
  files?: Record<string, string>;
  learner: Learner | null;
  summary: TrainingSummary;
  state: TrainingState;
  totals: LedgerTotals;
}

/** Writes the trained model and its metrics, and gives the optimizer's memory back. */
async function saveTrained(context: RunContext, stage: string, trained: Trained): Promise<TrainedStage> {
  const { engine, learner, summary, state, totals } = trained;
  const model = join(stage, "model");
  await engine.resetOptimizer();
  if (learner === null) await saveWhole(context, model, trained);
  else await saveLearner(context, model, engine, learner);
  const metrics = await state.log.seal();
  const { hash } = learner === null ? await wholeModel("", model) : await adaptedModel("", model, learner.base);
  return { hash, steps: summary.steps, tokens: summary.tokens, totals, metrics, files: await fileHashes(model) };
}

async function saveWhole(context: RunContext, folder: string, trained: Trained): Promise<void> {
  const { engine, config, raw, companion, endTokens = [], files } = trained;
  const dtype: DType = engine.dtype;
  await saveCheckpoint(folder, {
    config,
    raw,
    dtype,
    tensors: oneAtATime(engine.tensors()),
    ...(companion === undefined ? {} : { companion }),
    endTokens,
    files: { ...files, ...templateFile(context) },
  });
}

/** The adapter that was trained, which is the active one. */
async function saveLearner(context: RunContext, folder: string, { adapters }: Engine, learner: Learner): Promise<void> {
  const { config, raw } = learner;
  const active = adapters.active as string;
  const [parameters, tensors] = [adapters.parameters(active), adapters.tensors(active)];
  await saveAdapter(folder, { config, raw, parameters, tensors });
  for (const [name, text] of Object.entries(templateFile(context))) await writeWhole(join(folder, name), text);
}

interface MetricsEnds {
  first: Metrics;
  /** The last steps: this share of them, at least one. */
  end: Metrics[];
}

/** Reads the metrics of a trained stage; a reused one's become events, as they did when it was trained. */
async function readMetrics(
  context: RunContext,
  plan: { name: string; phase: number; position: Position },
  { folder, result, reused }: { folder: string; result: TrainedStage; reused: boolean },
  share: number,
): Promise<MetricsEnds> {
  const from = result.metrics.count - Math.max(1, Math.floor(share * result.metrics.count));
  let first: Metrics | null = null;
  const end: Metrics[] = [];
  let index = 0;
  const steps = reused
    ? earlierSteps(context, plan, { folder, result })
    : sealedRows<Metrics>(folder, "metrics", result.metrics);
  for await (const row of steps) {
    first ??= row;
    if (index++ >= from) end.push(row);
  }
  return { first: first as Metrics, end };
}

/** The metrics of a stage that was trained before; they become events as they are read. */
export async function* earlierSteps(
  context: RunContext,
  plan: { name: string; phase: number; position: Position },
  { folder, result }: { folder: string; result: Pick<TrainedStage, "metrics"> },
): AsyncGenerator<Metrics> {
  for await (const row of sealedRows<Metrics>(folder, "metrics", result.metrics)) {
    context.events.append({ event: "step", ...origin(plan), ...row });
    yield row;
  }
}

function hashRows(rows: readonly SupervisedRow[]): string {
  const hash = new ContentHash();
  for (const { promptIds, completionIds } of rows) hash.ids(promptIds).ids(completionIds);
  return hash.digest();
}

/** First and last step, and means over the last quarter of the steps. */
function summarize({ first, end }: MetricsEnds, { steps, tokens }: TrainedStage): TrainingResult {
  return {
    steps,
    tokens,
    first,
    last: end[end.length - 1] as Metrics,
    finalLoss: meanOf(end, (row) => row.loss),
    finalMargin: meanOf(end, (row) => row["rewards/margins"]),
    finalAccuracy: meanOf(end, (row) => row["rewards/accuracies"]),
    finalDpoWeight: meanOf(end, (row) => row["tempora/dpo_weight"]),
    finalGradNorm: meanOf(end, (row) => row.grad_norm),
  };
}

function meanOf(rows: readonly Metrics[], value: (row: Metrics) => number | undefined): number {
  return rows.reduce((sum, row) => sum + (value(row) ?? 0), 0) / rows.length;
}

/** The judge's instruction goes with the model that was trained with it. */
function templateFile({ source }: RunContext): Record<string, string> {
  if (source.judgeTemplate === null) return {};
  return { [judgeTemplateFile]: `${JSON.stringify(source.judgeTemplate, null, 2)}\n` };
}
