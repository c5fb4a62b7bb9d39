import { existsSync, readdirSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileError, systemErrorCode, TemporaError } from "@tempora/errors";
import type { AnswerRow, EventRow, PairRow, RunResult } from "@tempora/run";
import { readRows } from "@tempora/text";

/** The pairs of one phase, with where they belong. */
export interface PhasePairs {
  strategy: string;
  iteration: number;
  phase: number;
  rows: PairRow[];
}

/** A model's answers to the held-out prompts, in the prompts' order, which is the same for all models. */
export interface ModelAnswers {
  strategy: string;
  model: string;
  rows: AnswerRow[];
}

/** What a report shows of a run folder. */
export interface Run {
  folder: string;
  result: RunResult;
  events: EventRow[];
  pairs: PhasePairs[];
  /** Of every evaluated model; a strategy's M0 is among its own. */
  answers: ModelAnswers[];
}

/** Reads a run folder, of a finished run or of one that goes on. @throws TemporaError when it is none. */
export async function readRun(folder: string): Promise<Run> {
  const result = await readResult(join(folder, "run.json"));
  const events = await readEvents(folder);
  const pairs: PhasePairs[] = [];
  for (const strategy of result.strategies) {
    for (const { iteration, phases } of strategy.iterations) {
      for (const { phase, pairsFile } of phases) {
        const rows = await readList<PairRow>(join(folder, pairsFile));
        pairs.push({ strategy: strategy.name, iteration, phase, rows });
      }
    }
  }
  return { folder, result, events, pairs, answers: await readAnswers(folder, result) };
}

/** The events of a run, in their order. */
export async function readEvents(folder: string): Promise<EventRow[]> {
  return readList<EventRow>(join(folder, "events.jsonl"));
}

/** The held-out answers of every model that the result names. */
export async function readAnswers(folder: string, result: RunResult): Promise<ModelAnswers[]> {
  const answers: ModelAnswers[] = [];
  for (const { name: strategy, models } of result.strategies) {
    for (const { model, answersFile } of models) {
      answers.push({ strategy, model, rows: await readList<AnswerRow>(join(folder, answersFile)) });
    }
  }
  return answers;
}

/** What is wrong with a folder that holds no run, and which is meant where it holds those of a study. */
export function noRunFolder(folder: string): TemporaError {
  const study = existsSync(join(folder, "study.json"));
  const seeds = study ? readdirSync(folder).filter((name) => /^seed-\d+$/.test(name)) : [];
  return new TemporaError(`This is no run folder: it holds ${study ? "a study over seeds" : "no run.json"}`, {
    where: { file: folder },
    remedy:
      seeds.length > 0
        ? `Name its runs: ${seeds.map((name) => join(folder, name)).join(", ")}.`
        : "Name the folder of a run, as `tempora train` prints it.",
  });
}

export async function readResult(file: string): Promise<RunResult> {
  let text: string;
  try {
    text = await readFile(file, "utf8");
  } catch (error) {
    if (systemErrorCode(error) !== "ENOENT") throw fileError(error, "Cannot read the run's result", file);
    throw noRunFolder(dirname(file));
  }
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new TemporaError("The run's result is not JSON", {
      where: { file },
      remedy: "Run `tempora train` again.",
      cause,
    });
  }
  if (typeof value !== "object" || value === null || !("format" in value) || value.format !== 2) {
    throw new TemporaError("The run's result has another format than this version reads", {
      where: { file, field: "format" },
      remedy: "Run `tempora train` again with this version.",
    });
  }
  return value as RunResult;
}

async function readList<T>(file: string): Promise<T[]> {
  const rows: T[] = [];
  for await (const { value } of readRows(file)) rows.push(value as T);
  return rows;
}
