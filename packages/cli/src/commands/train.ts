import { existsSync } from "node:fs";
import { basename, join } from "node:path";
import { type StrategyName, strategyNames } from "@tempora/preferences";
import { alarmLines, PageFeed, readEvents, readRun, studyTable, summaryTable, writeReport } from "@tempora/report";
import {
  mergeConfigs,
  type ParsedConfig,
  paperSettings,
  parseConfig,
  type RunOutcome,
  runLoop,
  studySeeds,
  type TemporaConfig,
  templateOf,
  worldSettings,
} from "@tempora/run";
import { type Command, InvalidArgumentError, Option } from "commander";
import { defaultConfigFile, loadConfigFile } from "../config-file.ts";
import type { Context } from "../context.ts";
import { addLogOptions, type LogFlags, LoggingObserver, openLoggers, withLoggers } from "../log-to.ts";
import { modelHelp } from "../model.ts";
import { runObserver } from "../observer.ts";
import { addColumnsOption, type ColumnFlags, newCommand, whenCalled, wholeNumber } from "../options.ts";
import { addPageOptions, type PageFlags, servePage } from "../page-server.ts";
import { addSettingFlags, given, type SettingFlags, settingsOf } from "../setting-flags.ts";
import { printDryRun } from "./dry-run.ts";

interface TrainFlags extends ColumnFlags, SettingFlags, PageFlags, LogFlags {
  page: boolean;
  model?: string;
  prompts?: string;
  heldOut?: string;
  template?: string;
  strategy?: StrategyName[];
  iterations?: number;
  promptsPerIteration?: number;
  candidates?: number;
  run?: string;
  runs?: string;
  seed?: number;
  seeds: number;
  device?: "auto" | "cpu" | "cuda";
  dtype?: "f32" | "bf16";
  threads?: number;
  dryRun: boolean;
  overwrite?: boolean;
  keepStages?: boolean;
}

export function trainCommand(context: Context): Command {
  const world = worldSettings();
  const command = newCommand("train", "The whole loop: answer, judge, pair, train, again; and the report", [
    "train",
    "train --strategy temporal --iterations 3 --seed 7",
    "train --model models/M0 --prompts prompts.jsonl --run mine",
    "train tempora.config.ts --seeds 5",
    "train --model models/M0 --prompts prompts.jsonl --dry-run",
  ])
    .argument("[config]", `configuration file (default: ./${defaultConfigFile}, if there is one); flags override it`)
    .option("--model <model>", `${modelHelp}, to start from (default: the embedded world, whose M0 the run trains)`)
    .option(
      "--prompts <file>",
      "prompts for --model: a file, folder or pattern of JSONL, JSON, CSV or Parquet with a field prompt",
    )
    .option("--held-out <file>", "held-out prompts for --model, used whole (default: a share of --prompts)")
    .addOption(
      new Option(
        "--strategy <names>",
        `${strategyNames.join(", ")}; behind a comma, baselines at equal compute (default: temporal,self-rewarding; with --model temporal)`,
      ).argParser(parseStrategies),
    );
  addColumnsOption(command);
  addSizes(command, world.iterations);
  addSettingFlags(command);
  command.option(
    "--template <name>",
    "the judge's question: the name of one, or a JSON file {name, text, maxScore, answers?}",
  );
  command.option("--dry-run", "print the run's tokens, hours, memory and disk, and compute nothing of it", false);
  addLogOptions(command, "logs/ in the run's folder");
  addPageOptions(command).option("--no-page", "serve no page that shows the run while it goes on");
  return whenCalled(command, context, train);
}

function addSizes(command: Command, iterations: number): void {
  command
    .option("--iterations <count>", `of the first strategy (default: ${iterations})`, wholeNumber(1))
    .option(
      "--prompts-per-iteration <count>",
      "prompts answered in each iteration (default: the configuration's)",
      wholeNumber(1),
    )
    .option("--candidates <count>", "answers to each prompt (default: 7)", wholeNumber(2))
    .option("--run <name>", "name of the run's folder (default: made from source and strategy)")
    .option("--runs <folder>", 'folder of all runs and of their common store (default: "runs")')
    .option("--overwrite", "replace the results that a run of this name with other settings or other code has left")
    .option("--keep-stages", "after an upgrade, go on with the stages that the earlier code has begun")
    .option("--seed <number>", "seed of everything (default: 0)", wholeNumber(0))
    .option(
      "--seeds <count>",
      "repeat the run with this many seeds and print means with 95 % intervals",
      wholeNumber(1),
      1,
    )
    .addOption(new Option("--device <device>", "where to compute (default: auto)").choices(["auto", "cpu", "cuda"]))
    .addOption(
      new Option("--dtype <type>", "type of the weights (default: the checkpoint's own)").choices(["f32", "bf16"]),
    )
    .option("--threads <count>", "CPU threads, 0 for all cores (default: 0)", wholeNumber(0))
    .addOption(
      new Option("--quantize <format>", "hold the frozen base's matrices in 4 bits (QLoRA); needs an adapter").choices([
        "nf4",
      ]),
    );
}

function parseStrategies(text: string): StrategyName[] {
  return text.split(",").map((part) => {
    const name = strategyNames.find((known) => known === part.trim());
    if (name === undefined) throw new InvalidArgumentError(`Allowed choices are ${strategyNames.join(", ")}.`);
    return name;
  });
}

async function train(flags: TrainFlags, context: Context, args: readonly string[]): Promise<void> {
  context.onStopped("Run the same command again to go on from here: what is finished is kept.");
  const config = await configuration(flags, args[0]);
  if (flags.dryRun) return printDryRun(config, flags.seeds, context);
  const { overwrite, keepStages } = flags;
  const folder = join(config.runs, config.run);
  const loggers = openLoggers(
    flags,
    { folder: join(folder, "logs"), name: config.run, settings: config.settings },
    context,
  );
  const shown = runObserver(context.progress);
  // Of a study's runs, "seed-1/".
  const place = (run: string) => (flags.seeds > 1 ? `${basename(run)}/` : "");
  const observer = loggers === null ? shown : new LoggingObserver(shown, loggers, place);
  const options = { config, observer, signal: context.signal, overwrite, keepStages };
  const page = flags.page ? await servePage(new PageFeed({ folders: runFolders(config, flags.seeds) }), flags) : null;
  if (page !== null) context.progress.note(`The run is shown at ${page.url}`);
  try {
    await withLoggers(loggers, context.signal, async () => {
      if (flags.seeds > 1) await reportStudy(await studySeeds({ ...options, seeds: flags.seeds }), context);
      else await reportRun(await runLoop(options), context);
    });
  } catch (error) {
    for (const run of runFolders(config, flags.seeds)) await reportFailure(run, context);
    throw error;
  } finally {
    await page?.close();
  }
}

/** A run that cannot go on has a report too, of how it came to that. */
async function reportFailure(folder: string, context: Context): Promise<void> {
  if (!existsSync(join(folder, "run.json"))) return;
  const { result } = await readRun(folder);
  if (result.status === "failed") context.progress.note(`report  ${await writeReport(folder)}`);
}

function runFolders({ runs, run, settings }: ParsedConfig, seeds: number): string[] {
  if (seeds === 1) return [join(runs, run)];
  return Array.from({ length: seeds }, (_, k) => join(runs, run, `seed-${settings.seed + k}`));
}

async function reportRun(outcome: RunOutcome, context: Context): Promise<void> {
  const report = await writeReport(outcome.folder);
  const reuse = reuseText([outcome]);
  if (reuse !== "") context.progress.note(reuse);
  context.result(
    { folder: outcome.folder, report, stages: outcome.stages, run: outcome.result },
    [
      "",
      summaryTable(outcome.result),
      ...alarmLines(outcome.result, await readEvents(outcome.folder)),
      "",
      `report  ${report}`,
      `pairs   ${join(outcome.folder, "iterations")}`,
      `models  ${join(outcome.folder, "models")}`,
    ].join("\n"),
  );
}

async function reportStudy(outcome: Awaited<ReturnType<typeof studySeeds>>, context: Context): Promise<void> {
  const { folder, study, outcomes } = outcome;
  const reports: string[] = [];
  for (const run of outcomes) reports.push(await writeReport(run.folder));
  const reuse = reuseText(outcomes);
  if (reuse !== "") context.progress.note(reuse);
  context.result(
    { folder, study, reports },
    [
      "",
      studyTable(study),
      "",
      `study    ${join(folder, "study.json")}`,
      ...reports.map((file) => `report   ${file}`),
    ].join("\n"),
  );
}

/** File under flags, over the defaults of the source that they name. */
async function configuration(flags: TrainFlags, named: string | undefined): Promise<ParsedConfig> {
  const file = await loadConfigFile(named);
  const template = flags.template === undefined ? {} : { judge: { template: await templateOf(flags.template) } };
  const merged = mergeConfigs(file?.config ?? {}, template, flagConfig(flags));
  const defaults = (merged.model ?? null) === null ? worldSettings() : paperSettings;
  return parseConfig(merged, defaults, file?.file);
}

function flagConfig(flags: TrainFlags): TemporaConfig {
  const [strategy, ...baselines] = flags.strategy ?? [];
  const named = given({
    model: flags.model,
    prompts: flags.prompts,
    heldOutPrompts: flags.heldOut,
    columns: flags.columns,
    ...(strategy === undefined ? {} : { strategy, baselines }),
    iterations: flags.iterations,
    promptsPerIteration: flags.promptsPerIteration,
    candidates: flags.candidates,
    run: flags.run,
    runs: flags.runs,
    seed: flags.seed,
    engine: given({ device: flags.device, dtype: flags.dtype, threads: flags.threads }),
  });
  return mergeConfigs(named, settingsOf(flags));
}

function reuseText(outcomes: readonly RunOutcome[]): string {
  const computed = outcomes.reduce((sum, { stages }) => sum + stages.computed, 0);
  const reused = outcomes.reduce((sum, { stages }) => sum + stages.reused, 0);
  if (reused === 0) return "";
  if (computed === 0) return `Reused all ${reused} stages: nothing had to be computed.`;
  return `Reused ${reused} stages that were in the store, computed ${computed}.`;
}
