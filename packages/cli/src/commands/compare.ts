import { existsSync, readdirSync } from "node:fs";
import { basename, join } from "node:path";
import { TemporaError } from "@tempora/errors";
import { type ComparedPrompt, type Comparison, comparisonPage } from "@tempora/report";
import { paperSettings } from "@tempora/run";
import { type Conversation, shownText, writeWhole } from "@tempora/text";
import type { Command } from "commander";
import { table } from "table";
import type { Context } from "../context.ts";
import { loadEngine, type OpenModel, openModel } from "../model.ts";
import {
  addCacheOptions,
  addColumnsOption,
  addEngineOptions,
  addSamplingOptions,
  type CacheFlags,
  type ColumnFlags,
  type EngineFlags,
  newCommand,
  type SamplingFlags,
  whenCalled,
  wholeNumber,
} from "../options.ts";
import { claimFile } from "../output.ts";
import { type PromptIds, RowReader } from "../rows.ts";
import { samplePrompts } from "../sample-prompts.ts";
import { addTextOptions, renderOptions, type TextFlags } from "../text-flags.ts";

interface CompareFlags extends ColumnFlags, EngineFlags, SamplingFlags, CacheFlags, TextFlags {
  run?: string;
  prompts?: string;
  prompt: string[];
  limit: number;
  n: number;
  stop: string[];
  out?: string;
}

/** A model as it was named: a checkpoint, with an adapter over it where there is one. */
interface Compared {
  name: string;
  model: string;
  adapter?: string;
}

export function compareCommand(context: Context): Command {
  const { sampling } = paperSettings;
  const command = newCommand("compare", "What several models answer to the same prompts, side by side", [
    "compare M0 M2 --run runs/world-temporal",
    "compare models/base models/base+adapters/polite --prompts prompts.jsonl --out compared.html",
    'compare org/name runs/mine/models/M2 --prompt "Name three colours." --n 2',
  ])
    .argument("<models...>", "checkpoints, as paths or names on the hub; MODEL+FOLDER is a model with a LoRA adapter")
    .option(
      "--run <folder>",
      "models are those of this run, as M0, and prompts its held-out ones unless others are given",
    )
    .option("--prompts <file>", "rows with a prompt (text or messages)")
    .option("--prompt <text...>", "a prompt instead of a file, may be repeated", [])
    .option("--limit <count>", "prompts of a file that are answered at most", wholeNumber(1), 20)
    .option("--n <count>", "answers of each model to a prompt", wholeNumber(1), 1)
    .option("--stop <text...>", "texts that end an answer", [])
    .option("--out <file>", "a page with the answers instead of a table on the terminal, as compared.html");
  addSamplingOptions(addTextOptions(command), { ...sampling, seed: 0 });
  return whenCalled(addColumnsOption(addCacheOptions(addEngineOptions(command))), context, compare);
}

async function compare(flags: CompareFlags, context: Context, names: readonly string[]): Promise<void> {
  context.onStopped("Nothing was written: run the same command again.");
  const source = promptSource(flags);
  const out = flags.out === undefined ? null : await claimFile("--out", flags.out, source === null ? [] : [source]);
  const models = names.map((name) => comparedModel(name, flags.run));
  const opened: OpenModel[] = [];
  // All before the first answers: a wrong name is told before any work.
  for (const { model } of models) opened.push(await openModel(model, context));
  const rows: ComparedPrompt[] = [];
  for (const [index, model] of models.entries()) {
    const { prompts, completions } = await answersOf(model, opened[index] as OpenModel, { source, flags, context });
    for (const [k, { source: row }] of prompts.entries()) {
      rows[k] ??= { prompt: shownText(row.value.prompt as Conversation), answers: [] };
      const shown = rows[k] as ComparedPrompt;
      shown.answers[index] = completions[k]!.map(({ text, ids, finishReason }) => ({
        text,
        tokens: ids.length,
        finish_reason: finishReason,
      }));
    }
  }
  const facts = `temperature ${flags.temperature} · top-p ${flags.topP} · seed ${flags.seed}`;
  const comparison: Comparison = { models: models.map(({ name }) => name), facts, rows };
  if (out !== null) await writeWhole(out, await comparisonPage(comparison));
  const text =
    out === null ? terminalTable(comparison) : `${rows.length} prompts, ${models.length} models: ${flags.out}`;
  context.result({ ...(out === null ? {} : { out }), ...comparison }, text);
}

/** The file of prompts; null where they are given as texts. */
function promptSource({ run, prompts, prompt }: CompareFlags): string | null {
  if (prompts !== undefined && prompt.length > 0) {
    const remedy = "Give --prompts for a file, or --prompt for a text.";
    throw new TemporaError("--prompts and --prompt exclude each other", { remedy });
  }
  if (prompt.length > 0) return null;
  if (prompts !== undefined) return prompts;
  if (run !== undefined) return join(run, "evaluation", "M0.jsonl");
  const remedy = "Give --prompts FILE, --prompt TEXT, or --run FOLDER, whose held-out prompts are taken.";
  throw new TemporaError("There is no prompt", { remedy });
}

/** A "+" may stand in a path: what is there as it is named has no adapter. */
function comparedModel(name: string, run: string | undefined): Compared {
  const inRun = (part: string) => {
    const folder = run === undefined ? part : join(run, "models", part);
    if (existsSync(folder)) return folder;
    if (run !== undefined && /^M\d+$/.test(part) && !existsSync(part)) throw notInRun(run, part);
    return part;
  };
  const at = name.lastIndexOf("+");
  if (at < 1 || existsSync(inRun(name))) return { name: shortName(name), model: inRun(name) };
  const [model, adapter] = [name.slice(0, at), name.slice(at + 1)];
  return { name: `${shortName(model)}+${shortName(adapter)}`, model: inRun(model), adapter };
}

function notInRun(run: string, model: string): TemporaError {
  const folder = join(run, "models");
  const there = existsSync(folder) ? readdirSync(folder).sort() : [];
  return new TemporaError(`The run has no model ${model}`, {
    where: { file: folder },
    remedy: there.length > 0 ? `It has ${there.join(", ")}.` : "Name the folder of a run that has begun.",
  });
}

/** "runs/mine/models/M1" is "mine/M1". */
function shortName(name: string): string {
  const parts = name.split("/").filter((part) => part !== "" && part !== "models");
  return parts.length > 1 ? parts.slice(-2).join("/") : (parts[0] ?? basename(name));
}

/** One model at a time is in the memory. */
async function answersOf(
  compared: Compared,
  model: OpenModel,
  { source, flags, context }: { source: string | null; flags: CompareFlags; context: Context },
): Promise<{ prompts: PromptIds[]; completions: Awaited<ReturnType<typeof samplePrompts>>["completions"] }> {
  const reader = new RowReader(model, context, {
    render: renderOptions(flags),
    skipTooLong: false,
    columns: flags.columns,
  });
  const all = await (source === null ? reader.texts(flags.prompt, "--prompt") : reader.prompts(source));
  const prompts = all.slice(0, flags.limit);
  const tokenizer = await model.tokenizer();
  const endTokens = await model.endTokens();
  const { adapter } = compared;
  using engine = await loadEngine(model, { ...flags, ...(adapter === undefined ? {} : { adapter }) }, context);
  const loaded = { engine, checkpoint: model.checkpoint, tokenizer, endTokens };
  const { completions } = await samplePrompts(loaded, prompts, flags, { label: compared.name, context });
  return { prompts, completions };
}

/** A column a model, as wide as the terminal has room for. */
function terminalTable({ models, rows }: Comparison): string {
  const room = (process.stdout.columns ?? 120) - 3 * models.length - 1;
  const width = Math.max(12, Math.floor(room / models.length));
  const body = rows.flatMap(({ prompt, answers }) => [
    [prompt, ...models.slice(1).map(() => "")],
    answers.map((list) => list.map(({ text }) => text).join("\n––\n")),
  ]);
  // One column has nothing to span.
  const spans = models.length > 1 ? rows.map((_, k) => ({ row: 1 + 2 * k, col: 0, colSpan: models.length })) : [];
  return table(
    [models, ...body].map((row) => row.map(plain)),
    {
      columns: models.map(() => ({ width, wrapWord: true })),
      spanningCells: spans,
    },
  ).trimEnd();
}

/** Without control characters, which a table cannot hold: an answer may spell any of them. */
const plain = (text: string) => text.replaceAll("\t", "  ").replaceAll(/[^\P{Cc}\n]/gu, "");
