import { existsSync } from "node:fs";
import { basename, extname, resolve } from "node:path";
import { TemporaError } from "@tempora/errors";
import { type Checkpoint, type GgufType, saveCopy, saveGguf, saveNf4 } from "@tempora/models";
import { modelCard, originOf } from "@tempora/report";
import { judgeTemplateFile } from "@tempora/run";
import { writeWhole } from "@tempora/text";
import { type Command, Option } from "commander";
import type { Context } from "../context.ts";
import { modelHelp, openModel } from "../model.ts";
import { newCommand, whenCalled } from "../options.ts";
import { claimFile, claimFolder } from "../output.ts";
import { type AnswerFormat, answerFormats, exportAnswers } from "./export-answers.ts";

const types = ["f32", "f16", "bf16", "q8_0", "nf4"] as const;

interface ExportFlags {
  model?: string;
  out: string;
  format?: "hf" | "gguf";
  type?: (typeof types)[number];
  name?: string;
  answers?: AnswerFormat;
  data?: string;
}

export function exportCommand(context: Context): Command {
  const command = newCommand("export", "Write a model for other tools, or answers for other people's evaluations", [
    "export --model runs/my-run/models/M2 --out M2.gguf --type q8_0",
    "export --model model.gguf --out folder --format hf",
    "export --model runs/my-run/models/M2 --out M2-bnb-4bit --type nf4",
    "export --answers alpaca-eval --data runs/my-run/evaluation/M2.jsonl --out M2.json --name M2",
  ])
    .option("--model <model>", modelHelp)
    .requiredOption("--out <path>", "folder or .gguf file to write; with --answers, the file")
    .addOption(
      new Option(
        "--format <format>",
        "Hugging Face folder or GGUF file (default: gguf when --out ends in .gguf)",
      ).choices(["hf", "gguf"]),
    )
    .addOption(
      new Option(
        "--type <type>",
        "element type; hf takes f32, bf16 and nf4 (bitsandbytes' 4 bits), gguf all but nf4 (default: the model's own, in GGUF f16 for f32)",
      ).choices(types),
    )
    .option("--name <name>", "what the model is called in the files (default: by its path)")
    .addOption(new Option("--answers <format>", "write answers instead of a model").choices(answerFormats))
    .option("--data <file>", "answers: a run's evaluation/M*.jsonl, or what `tempora generate` wrote");
  return whenCalled(command, context, run);
}

async function run(flags: ExportFlags, context: Context): Promise<void> {
  context.onStopped("Nothing was written: run the same command again.");
  const { answers, data, model } = flags;
  if (answers !== undefined) {
    if (data === undefined) throw missing("--data <file>", "the answers to export");
    return exportAnswers({ format: answers, data, out: flags.out, name: flags.name }, context);
  }
  if (model === undefined) throw missing("--model <model>", "the model to export");
  return exportModel({ ...flags, model }, context);
}

function missing(option: string, what: string): TemporaError {
  return new TemporaError(`The option ${option} is missing: ${what}`, { remedy: "See `tempora export --help`." });
}

async function exportModel(flags: ExportFlags & { model: string }, context: Context): Promise<void> {
  const format = flags.format ?? (flags.out.endsWith(".gguf") ? "gguf" : "hf");
  const { checkpoint, name: named, adapter } = await openModel(flags.model, context);
  if (adapter !== null) {
    throw new TemporaError("A LoRA adapter is no whole model", {
      where: { file: adapter },
      remedy: `Add it to its model first: tempora merge --model ${named} --out FOLDER; or give the adapter alone to llama.cpp: --out FILE.gguf there.`,
    });
  }
  const name = flags.name ?? basename(resolve(named), extname(named) === ".gguf" ? ".gguf" : "");
  const stage = context.progress.stage(`export ${named}`, 1, "model");
  const onProgress = (done: number, total: number) => stage.update(done / total);
  const plan = { name, signal: context.signal, onProgress };
  const written =
    format === "gguf" ? await writeGguf(checkpoint, flags, plan) : await writeFolder(checkpoint, flags, plan);
  stage.finish();
  for (const note of written.notes) context.progress.note(note);
  const { out, type, card, notes } = written;
  context.result(
    { out, format, type, card, notes },
    `${flags.model} as ${written.description}: ${flags.out}${card === null ? "" : `\ncard  ${card}`}`,
  );
}

interface Plan {
  name: string;
  signal: AbortSignal;
  onProgress(done: number, total: number): void;
}

interface Written {
  out: string;
  type: string;
  description: string;
  /** Null where one was there already. */
  card: string | null;
  notes: string[];
}

async function writeFolder(checkpoint: Checkpoint, flags: ExportFlags, plan: Plan): Promise<Written> {
  const { type } = flags;
  if (type === "f16" || type === "q8_0") {
    throw new TemporaError(`A Hugging Face folder is written in f32, bf16 or nf4, not in ${type}`, {
      remedy: "Give --type f32, bf16 or nf4, or --format gguf.",
    });
  }
  const out = await claimFolder("--out", flags.out, { inputs: checkpoint.files, what: "checkpoint" });
  const dtype = type ?? checkpoint.dtype;
  const description = `a Hugging Face folder in ${dtype === "nf4" ? "bitsandbytes' NF4" : dtype}`;
  const card = modelCard({ name: plan.name, format: description, origin: await originOf(checkpoint.path) });
  const template = await checkpoint.companion(judgeTemplateFile);
  const files = {
    "README.md": card,
    ...(template === null ? {} : { [judgeTemplateFile]: new TextDecoder().decode(template) }),
  };
  const options = { files, signal: plan.signal, onProgress: plan.onProgress };
  await (dtype === "nf4" ? saveNf4(checkpoint, out, options) : saveCopy(checkpoint, out, { dtype, ...options }));
  return { out, type: dtype, description, card: `${out}/README.md`, notes: [] };
}

async function writeGguf(checkpoint: Checkpoint, flags: ExportFlags, plan: Plan): Promise<Written> {
  if (!flags.out.endsWith(".gguf")) {
    throw new TemporaError("A GGUF file's name ends in .gguf", {
      where: { file: flags.out },
      remedy: "Name the file so: that is how other tools know it.",
    });
  }
  if (flags.type === "nf4") {
    throw new TemporaError("A GGUF file is not written in nf4", {
      remedy: "Give --type f32, f16, bf16 or q8_0, or --format hf.",
    });
  }
  const out = await claimFile("--out", flags.out, checkpoint.files);
  const type = (flags.type ?? (checkpoint.dtype === "bf16" ? "bf16" : "f16")).toUpperCase() as GgufType;
  const description = `a GGUF file in ${type}`;
  const card = `${out.slice(0, -".gguf".length)}.md`;
  const notes = await saveGguf(checkpoint, out, { type, ...plan });
  // Beside the file, under its name: the folder may be anybody's, and its README.md theirs.
  if (existsSync(card)) {
    notes.push(`${card} is there already and was left as it is: it may describe another file.`);
    return { out, type: type.toLowerCase(), description, card: null, notes };
  }
  const origin = await originOf(checkpoint.path);
  await writeWhole(card, modelCard({ name: plan.name, format: description, origin }));
  return { out, type: type.toLowerCase(), description, card, notes };
}
