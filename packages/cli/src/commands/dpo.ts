import { basename } from "node:path";
import type { Engine, PreferenceLoss } from "@tempora/engine";
import { type Json, TemporaError } from "@tempora/errors";
import { ContentHash, paperSettings } from "@tempora/run";
import {
  pairItem,
  type ReferenceSums,
  scoreReferences,
  scoreRows,
  type TrainingOptions,
  trainPreferences,
} from "@tempora/training";
import { type Command, Option } from "commander";
import { addLoraOptions, claimTrained, type LoraFlags, trainedAdapter, withoutAdapter } from "../adapter.ts";
import type { Context } from "../context.ts";
import { addLogOptions, type LogFlags, openLoggers } from "../log-to.ts";
import { requireTrainingMemory } from "../memory-check.ts";
import { loadEngine, modelHelp, type OpenModel, openModel } from "../model.ts";
import { modelIdentity } from "../model-identity.ts";
import {
  addColumnsOption,
  addEngineOptions,
  addTrainingOptions,
  type ColumnFlags,
  type EngineFlags,
  momentsOf,
  newCommand,
  type OptimizerFlags,
  optimizerOption,
  parseLossTerms,
  realNumber,
  type TrainingFlags,
  trainingOptions,
  whenCalled,
} from "../options.ts";
import { claimFile } from "../output.ts";
import { type PreferenceIds, RowReader } from "../rows.ts";
import { plannedSteps, tellStepTime } from "../step-time.ts";
import { addSkipOption, addTextOptions, renderOptions, type SkipFlags, type TextFlags } from "../text-flags.ts";
import { PartialTraining } from "./partial-training.ts";
import { TrainingRun } from "./training.ts";

interface DpoFlags
  extends ColumnFlags,
    EngineFlags,
    LoraFlags,
    OptimizerFlags,
    TrainingFlags,
    TextFlags,
    SkipFlags,
    LogFlags {
  model: string;
  reference?: string;
  data: string;
  out: string;
  loss: PreferenceLoss["terms"];
  beta: number;
  labelSmoothing: number;
  discopopTau: number;
  metrics?: string;
}

export function dpoCommand(context: Context): Command {
  const { loss } = paperSettings;
  const command = newCommand("dpo", "Preference training: DPO and every other loss_type of TRL", [
    "dpo --model models/M0 --data pairs.jsonl --out models/M1 --beta 0.1 --lr 1e-6 --metrics dpo.jsonl",
    "dpo --model models/M0 --data pairs.jsonl --out models/M1 --loss sigmoid,sft:0.3",
  ])
    .requiredOption("--model <model>", modelHelp)
    .option("--reference <model>", "reference model (default: what is trained, as it is before training)")
    .requiredOption("--data <file>", "rows with prompt, chosen and rejected, or their _ids")
    .requiredOption("--out <folder>", "where the trained checkpoint, or the adapter, goes")
    .addOption(
      new Option("--loss <terms>", "loss_type, or a weighted sum as sigmoid,sft:0.3")
        .argParser(parseLossTerms)
        .default(loss.terms, "sigmoid"),
    )
    .option(
      "--beta <number>",
      "strength of the pull to the reference",
      realNumber(0, Infinity, { above: true }),
      loss.beta,
    )
    .option(
      "--label-smoothing <share>",
      "chance that a pair is labelled the wrong way round",
      realNumber(0, 0.5),
      loss.labelSmoothing,
    )
    .option(
      "--discopop-tau <number>",
      "temperature of discopop",
      realNumber(0, Infinity, { above: true }),
      loss.discopopTau,
    )
    .option("--metrics <file>", "one JSON object for each optimizer step, under TRL's names");
  addSkipOption(addTextOptions(command), "rows that are longer than the context");
  addTrainingOptions(command, paperSettings.training, "pairs");
  addLogOptions(command, "<out>-logs");
  addLoraOptions(command.addOption(optimizerOption()));
  return whenCalled(addColumnsOption(addEngineOptions(command)), context, dpo);
}

async function dpo(flags: DpoFlags, context: Context): Promise<void> {
  context.onStopped("The training's state is kept: run the same command again to go on.");
  const loss = checkedLoss(flags);
  const out = await claimTrained(flags);
  const metricsFile =
    flags.metrics === undefined ? null : await claimFile("--metrics", flags.metrics, [flags.data, out]);
  const model = await openModel(flags.model, context);
  const reader = new RowReader(model, context, {
    render: renderOptions(flags),
    skipTooLong: flags.skipTooLong,
    columns: flags.columns,
  });
  const pairs = await reader.preferences(flags.data);
  const adapter = await trainedAdapter(flags, model);
  const planned = { ...plannedSteps(model, pairs.map(pairItem), flags), adapter: adapter?.config };
  requireTrainingMemory(model, flags, planned, (text) => context.progress.note(text));
  const reference = flags.reference === undefined ? null : await openReference(flags.reference, model, context);
  const plan = { command: "dpo" as const, model, adapter, out, inputs: await inputsOf(pairs, reference, loss) };
  await using partial = await PartialTraining.open(plan, flags, context);
  const { state } = partial;
  const done = state.metrics.length;
  await tellStepTime(model, flags, { ...planned, done, scored: reference === null && done === 0 }, context);
  const given =
    reference === null
      ? null
      : await partial.references(pairs.length, (onSums) =>
          scoreReference(reference, pairs, { flags, onSums }, context),
        );
  const base = { ...model, adapter: null };
  using engine = await loadEngine(base, { ...withoutAdapter(flags), moments: momentsOf(flags) }, context);
  await adapter?.begin(engine);
  const options = trainingOptions(flags);
  const references = given ?? (await ownReferences(partial, engine, pairs, options, context));
  const rows = pairs.map((pair, index) => ({ ...pair, reference: references[index] as ReferenceSums }));
  const loggers = openLoggers(flags, { folder: `${out}-logs`, name: basename(out), settings: flags }, context);
  const run = await TrainingRun.begin("dpo", { ...flags, rows: rows.length }, { metricsFile, loggers, state }, context);
  await run.during(async () => {
    const summary = await trainPreferences({
      engine,
      rows,
      options: { ...options, loss },
      onMetrics: run.onMetrics,
      ...partial.hooks(engine),
    });
    await run.finish(model, engine, summary, { out, skipped: reader.skipped, adapter });
    await partial.done();
  });
}

/** What decides the training beside the model and its options. */
async function inputsOf(
  pairs: readonly PreferenceIds[],
  reference: OpenModel | null,
  loss: PreferenceLoss,
): Promise<Record<string, Json>> {
  const hash = new ContentHash();
  for (const { promptIds, chosenIds, rejectedIds } of pairs) hash.ids(promptIds).ids(chosenIds).ids(rejectedIds);
  return {
    rows: hash.digest(),
    reference: reference === null ? null : await modelIdentity(reference.checkpoint, reference.adapter),
    loss: loss as unknown as Json,
  };
}

/** The reference is what is trained, as it is before. */
function ownReferences(
  partial: PartialTraining,
  engine: Engine,
  pairs: readonly PreferenceIds[],
  options: TrainingOptions,
  context: Context,
): Promise<ReferenceSums[]> {
  return partial.references(pairs.length, async (onSums) => {
    const stage = context.progress.stage("reference", pairs.length, "pairs");
    const { signal } = context;
    await scoreReferences({ engine, rows: pairs, options, onSums, onProgress: (done) => stage.update(done), signal });
    stage.finish();
  });
}

function checkedLoss(flags: DpoFlags): PreferenceLoss {
  const types = flags.loss.map((term) => term.type);
  if (types.includes("exo_pair") && flags.labelSmoothing === 0) {
    throw new TemporaError("exo_pair needs label smoothing", {
      where: { field: "--label-smoothing" },
      remedy: "Give a value above 0, as --label-smoothing 0.001.",
    });
  }
  if (flags.labelSmoothing >= 0.5) {
    throw new TemporaError(`The label smoothing is ${flags.labelSmoothing}`, {
      where: { field: "--label-smoothing" },
      remedy: "Give a share below 0.5: from there on the labels would mean their opposite.",
    });
  }
  return {
    terms: flags.loss,
    beta: flags.beta,
    labelSmoothing: flags.labelSmoothing,
    discopopTau: flags.discopopTau,
  };
}

async function openReference(folder: string, policy: OpenModel, context: Context): Promise<OpenModel> {
  const model = await openModel(folder, context);
  const [own, wanted] = [model.checkpoint.config.vocabSize, policy.checkpoint.config.vocabSize];
  if (own === wanted) return model;
  throw new TemporaError(`The reference has a vocabulary of ${own} tokens, the model one of ${wanted}`, {
    where: { file: folder },
    remedy: "Name a reference that reads the same token ids.",
  });
}

/** Summed log-probs of every pair under another model, which leaves the memory again before training begins. */
async function scoreReference(
  model: OpenModel,
  pairs: readonly PreferenceIds[],
  { flags, onSums }: { flags: DpoFlags; onSums(pair: number, sums: ReferenceSums): Promise<void> },
  context: Context,
): Promise<void> {
  using engine = await loadEngine(model, withoutAdapter(flags), context);
  const stage = context.progress.stage("reference", pairs.length, "pairs");
  const items = pairs.map(({ promptIds, chosenIds, rejectedIds, where }) => ({
    promptIds,
    completions: [chosenIds, rejectedIds],
    where,
  }));
  const scored = await scoreRows(engine, items, {
    maxTokens: flags.maxTokens,
    signal: context.signal,
    onProgress: (done) => stage.update(done),
  });
  stage.finish();
  for (const [pair, [chosen, rejected]] of scored.entries()) {
    await onSums(pair, { chosen: chosen!.sum, rejected: rejected!.sum });
  }
}
