import { basename } from "node:path";
import { ContentHash, paperSettings } from "@tempora/run";
import { supervisedItem, trainSupervised } from "@tempora/training";
import type { Command } from "commander";
import { addLoraOptions, claimTrained, type LoraFlags, trainedAdapter, withoutAdapter } from "../adapter.ts";
import type { Context } from "../context.ts";
import { addLogOptions, type LogFlags, openLoggers } from "../log-to.ts";
import { requireTrainingMemory } from "../memory-check.ts";
import { loadEngine, modelHelp, openModel } from "../model.ts";
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
  type TrainingFlags,
  trainingOptions,
  whenCalled,
} from "../options.ts";
import { claimFile } from "../output.ts";
import { RowReader } from "../rows.ts";
import { plannedSteps, tellStepTime } from "../step-time.ts";
import { addSkipOption, addTextOptions, renderOptions, type SkipFlags, type TextFlags } from "../text-flags.ts";
import { PartialTraining } from "./partial-training.ts";
import { TrainingRun } from "./training.ts";

interface SftFlags
  extends ColumnFlags,
    EngineFlags,
    LoraFlags,
    OptimizerFlags,
    TrainingFlags,
    TextFlags,
    SkipFlags,
    LogFlags {
  model: string;
  data: string;
  out: string;
  metrics?: string;
}

export function sftCommand(context: Context): Command {
  const command = newCommand("sft", "Supervised fine-tuning: cross-entropy over the completion tokens", [
    "sft --model base --data demonstrations.jsonl --out models/M0 --lr 1e-5 --epochs 2 --metrics sft.jsonl",
  ])
    .requiredOption("--model <model>", modelHelp)
    .requiredOption("--data <file>", "rows with prompt and completion, or prompt_ids and completion_ids")
    .requiredOption("--out <folder>", "where the trained checkpoint, or the adapter, goes")
    .option("--metrics <file>", "one JSON object for each optimizer step, under TRL's names");
  addSkipOption(addTextOptions(command), "rows that are longer than the context");
  addTrainingOptions(command, paperSettings.start.training, "rows");
  addLogOptions(command, "<out>-logs");
  addLoraOptions(command.addOption(optimizerOption()));
  return whenCalled(addColumnsOption(addEngineOptions(command)), context, sft);
}

async function sft(flags: SftFlags, context: Context): Promise<void> {
  context.onStopped("The training's state is kept: run the same command again to go on.");
  const out = await claimTrained(flags);
  const metricsFile =
    flags.metrics === undefined ? null : await claimFile("--metrics", flags.metrics, [flags.data, out]);
  const model = await openModel(flags.model, context);
  const reader = new RowReader(model, context, {
    render: renderOptions(flags),
    skipTooLong: flags.skipTooLong,
    columns: flags.columns,
  });
  const rows = await reader.completions(flags.data);
  const adapter = await trainedAdapter(flags, model);
  const planned = { ...plannedSteps(model, rows.map(supervisedItem), flags), adapter: adapter?.config };
  requireTrainingMemory(model, flags, planned, (text) => context.progress.note(text));
  const hash = new ContentHash();
  for (const { promptIds, completionIds } of rows) hash.ids(promptIds).ids(completionIds);
  const plan = { command: "sft" as const, model, adapter, out, inputs: { rows: hash.digest() } };
  await using partial = await PartialTraining.open(plan, flags, context);
  const { state } = partial;
  await tellStepTime(model, flags, { ...planned, done: state.metrics.length, scored: false }, context);
  const base = { ...model, adapter: null };
  using engine = await loadEngine(base, { ...withoutAdapter(flags), moments: momentsOf(flags) }, context);
  await adapter?.begin(engine);
  const loggers = openLoggers(flags, { folder: `${out}-logs`, name: basename(out), settings: flags }, context);
  const run = await TrainingRun.begin("sft", { ...flags, rows: rows.length }, { metricsFile, loggers, state }, context);
  await run.during(async () => {
    const summary = await trainSupervised({
      engine,
      rows,
      options: trainingOptions(flags),
      onMetrics: run.onMetrics,
      ...partial.hooks(engine),
    });
    await run.finish(model, engine, summary, { out, skipped: reader.skipped, adapter });
    await partial.done();
  });
}
