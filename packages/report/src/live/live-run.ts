import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { basename, join, resolve } from "node:path";
import { isObject, systemErrorCode } from "@tempora/errors";
import {
  type EventRow,
  type LiveState,
  liveFileName,
  noTokens,
  type PairRow,
  type RunResult,
  type StrategyResult,
} from "@tempora/run";
import { type PhasePairs, type Run, readAnswers, readResult } from "../run-folder.ts";

/**
 * A run folder while its run goes on: run.json knows the iterations that ended; events.jsonl and the files of pairs are
 * further. Null where nothing of a run is there yet.
 */
export async function readLiveRun(folder: string): Promise<Run | null> {
  const events = await readWhole<EventRow>(join(folder, "events.jsonl"));
  const known = existsSync(join(folder, "run.json")) ? await readResult(join(folder, "run.json")) : null;
  if (known === null && events.length === 0) return null;
  const result = withBegun(known ?? unknownRun(await startedWith(folder)), events);
  const pairs = await writtenPairs(folder, result, events);
  return { folder, result, events, pairs, answers: await readAnswers(folder, result) };
}

/** What a run says of this moment; null where it does not go on. */
export async function readLiveState(folder: string): Promise<LiveState | null> {
  const text = await readText(join(folder, liveFileName));
  return text === null ? null : (JSON.parse(text) as LiveState);
}

/** "runs/a/seed-1" is "seed-1"; a run's name for people. */
export const runName = (folder: string) => basename(resolve(folder));

/** A folder in which no run has told anything yet. */
export const emptyRun = (folder: string): Run => ({
  folder,
  result: unknownRun({}),
  events: [],
  pairs: [],
  answers: [],
});

/** The settings that a run was started with: they are written before any work. */
async function startedWith(folder: string): Promise<Record<string, unknown>> {
  const text = await readText(join(folder, "started.json"));
  const started: unknown = text === null ? null : JSON.parse(text);
  return isObject(started) && isObject(started.settings) ? started.settings : {};
}

/** What is known before the first iteration has ended: the settings. */
function unknownRun(settings: Record<string, unknown>): RunResult {
  return {
    format: 2,
    status: "running",
    codeVersion: "",
    settings,
    device: { device: "", name: "", dtype: "" },
    graded: false,
    start: { origin: "given", checkpointHash: "", parameters: 0, steps: 0, tokens: 0, flops: 0, finalLoss: null },
    strategies: [],
  };
}

/** With the strategies that have begun and that run.json does not know yet. */
function withBegun(result: RunResult, events: readonly EventRow[]): RunResult {
  const known = new Set(result.strategies.map(({ name }) => name));
  const begun: StrategyResult[] = [];
  for (const { strategy } of events) {
    if (strategy === null || known.has(strategy)) continue;
    known.add(strategy);
    const first = result.strategies.length + begun.length === 0;
    const folder = first ? "" : `${strategy}/`;
    begun.push({
      name: strategy,
      folder,
      matches: null,
      iterations: [],
      models: [],
      best: "",
      totals: noTokens(),
    });
  }
  return { ...result, strategies: [...result.strategies, ...begun] };
}

/** Of every phase whose pairs are written, whether or not the iteration has ended. */
async function writtenPairs(folder: string, result: RunResult, events: readonly EventRow[]): Promise<PhasePairs[]> {
  const pairs: PhasePairs[] = [];
  for (const { name: strategy, folder: own, iterations } of result.strategies) {
    const begun = events.filter((row) => row.strategy === strategy).map(({ iteration }) => iteration);
    const last = Math.max(0, iterations.length, ...begun);
    for (let iteration = 1; iteration <= last; iteration++) {
      const files = ["pairs-future.jsonl", "pairs.jsonl"].map((name) =>
        join(folder, own, "iterations", `${iteration}`, name),
      );
      const written = files.filter((file) => existsSync(file));
      for (const [index, file] of written.entries()) {
        pairs.push({ strategy, iteration, phase: index + 1, rows: await readWhole<PairRow>(file) });
      }
    }
  }
  return pairs;
}

/** The whole lines of a file that may be written to at this moment; none where there is no file. */
async function readWhole<T>(file: string): Promise<T[]> {
  const text = (await readText(file)) ?? "";
  const whole = text.slice(0, text.lastIndexOf("\n") + 1);
  return whole.split("\n").flatMap((line) => (line === "" ? [] : [JSON.parse(line) as T]));
}

/** Null where there is no file. */
async function readText(file: string): Promise<string | null> {
  try {
    return await readFile(file, "utf8");
  } catch (error) {
    if (systemErrorCode(error) === "ENOENT") return null;
    throw error;
  }
}
