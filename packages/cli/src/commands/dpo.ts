import { basename } from "node:path";
import type { PreferenceLoss } from "@tempora/engine";
import { TemporaError } from "@tempora/errors";
import { paperSettings } from "@tempora/run";
import { type ReferenceSums, scoreRows, trainPreferences } from "@tempora/training";
import { type Command, Option } from "commander";
import { addLoraOptions, type LoraFlags, trainedAdapter, withoutAdapter } from "../adapter.ts";
import type { Context } from "../context.ts";
import { addLogOptions, type LogFlags, openLoggers } from "../log-to.ts";
import { requireTrainingMemory } from "../memory-check.ts";
import { loadEngine, modelHelp, type OpenModel, openModel } from "../model.ts";
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
import { claimFile, claimFolder } from "../output.ts";
import { type PreferenceIds, RowReader } from "../rows.ts";
import { addSkipOption, addTextOptions, renderOptions, type SkipFlags, type TextFlags } from "../text-flags.ts";
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
  context.onStopped("No checkpoint was written: run the same command again.");
  const inputs = [flags.model, flags.reference, flags.adapter].filter((input) => input !== undefined);
  const loss = checkedLoss(flags);
  const out = await claimFolder("--out", flags.out, inputs);
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
  const lengths = pairs.map(
    ({ promptIds, chosenIds, rejectedIds }) => promptIds.length + chosenIds.length + rejectedIds.length,
  );
  requireTrainingMemory(model, flags, { rows: lengths, adapter: adapter?.config }, (text) =>
    context.progress.note(text),
  );
  const references =
    flags.reference === undefined ? null : await scoreReference(flags.reference, model, pairs, flags, context);
  const base = { ...model, adapter: null };
  using engine = await loadEngine(base, { ...withoutAdapter(flags), moments: momentsOf(flags) }, context);
  await adapter?.begin(engine);
  const rows = pairs.map((pair, index) => ({
    ...pair,
    ...(references === null ? {} : { reference: references[index]! }),
  }));
  const loggers = openLoggers(flags, { folder: `${out}-logs`, name: basename(out), settings: flags }, context);
  const run = await TrainingRun.begin("dpo", { ...flags, rows: rows.length }, { metricsFile, loggers }, context);
  const own = references === null ? context.progress.stage("reference", rows.length, "pairs") : null;
  await run.during(async () => {
    const summary = await trainPreferences({
      engine,
      rows,
      options: { ...trainingOptions(flags), loss },
      onReference: (done, total) => {
        own?.update(done);
        if (done === total) {
          own?.finish();
          run.start();
        }
      },
      onMetrics: run.onMetrics,
      signal: context.signal,
    });
    await run.finish(model, engine, summary, { out, skipped: reader.skipped, adapter });
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

/** Summed log-probs of every pair under another model, which leaves the memory again before training begins. */
async function scoreReference(
  folder: string,
  policy: OpenModel,
  pairs: readonly PreferenceIds[],
  flags: DpoFlags,
  context: Context,
): Promise<ReferenceSums[]> {
  const model = await openModel(folder, context);
  const [own, wanted] = [model.checkpoint.config.vocabSize, policy.checkpoint.config.vocabSize];
  if (own !== wanted) {
    throw new TemporaError(`The reference has a vocabulary of ${own} tokens, the model one of ${wanted}`, {
      where: { file: folder },
      remedy: "Name a reference that reads the same token ids.",
    });
  }
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
  return scored.map(([chosen, rejected]) => ({ chosen: chosen!.sum, rejected: rejected!.sum }));
}
