import { existsSync } from "node:fs";
import { copyFile, link, mkdir, readFile, realpath, rename, rm } from "node:fs/promises";
import { basename, join } from "node:path";
import { canonical, fileError, isObject, type Json, systemErrorCode } from "@tempora/errors";
import { openCheckpoint } from "@tempora/models";
import { strategyNames } from "@tempora/preferences";
import { dayOf, dayText, writeJson } from "@tempora/text";
import type { RunResult } from "../results/results.ts";
import { judgeTemplateFile } from "../settings/judge-template.ts";
import { makeFolder } from "../store/store.ts";

/** Everything that a run writes into its folder: what is removed when other settings take its place. */
const ownEntries = [
  "run.json",
  "started.json",
  "events.jsonl",
  "report.html",
  "timings.log",
  "models",
  "iterations",
  "evaluation",
  ...strategyNames,
];

/**
 * Prepares the folder. Files of a run with other settings or other code go away first: what of it is still valid lies in
 * the store and costs nothing to make again. Returns the settings' fields that differ, or null for a fresh or equal run.
 */
export async function prepareRunFolder(
  folder: string,
  identity: { codeVersion: string; settings: Record<string, Json> },
): Promise<string[] | null> {
  await makeFolder(folder);
  const before = await readRun(folder);
  if (before === null) return null;
  const differing = Object.keys(identity.settings).filter(
    (key) => canonical((before.settings[key] ?? null) as Json) !== canonical(identity.settings[key] ?? null),
  );
  if (before.codeVersion !== identity.codeVersion) differing.push("the code");
  if (differing.length === 0) return null;
  for (const name of ownEntries) await rm(join(folder, name), { recursive: true, force: true });
  return differing;
}

/**
 * The day that templates which ask for the date are told: the given one, else that of the run's first start. A run that is
 * resumed after midnight goes on with the prompts that it began with.
 */
export async function startedOn(folder: string, given: string | null): Promise<Date> {
  const file = join(folder, "started.json");
  const before = given ?? (existsSync(file) ? await readDay(file) : null);
  const day = before ?? dayText(new Date());
  if (before === null) await writeJson(file, { date: day });
  return dayOf(day) as Date;
}

async function readDay(file: string): Promise<string | null> {
  try {
    const value: unknown = JSON.parse(await readFile(file, "utf8"));
    const date = isObject(value) ? value.date : null;
    return typeof date === "string" && dayOf(date) !== null ? date : null;
  } catch (error) {
    if (error instanceof SyntaxError) return null;
    throw fileError(error, "Cannot read the day of the run's start", file);
  }
}

async function readRun(folder: string): Promise<RunResult | null> {
  const file = join(folder, "run.json");
  try {
    return JSON.parse(await readFile(file, "utf8")) as RunResult;
  } catch (error) {
    // Missing: a fresh run. Not JSON: not of our making as it stands, and written anew.
    if (systemErrorCode(error) === "ENOENT" || error instanceof SyntaxError) return null;
    throw fileError(error, "Cannot read the run", file);
  }
}

export async function writeRun(folder: string, result: RunResult): Promise<void> {
  await writeJson(join(folder, "run.json"), result);
}

/** Shows a checkpoint of the store in the run folder: its files are linked, or copied where links do not work. */
export async function placeModel(checkpoint: string, target: string): Promise<void> {
  const partial = `${target}.partial`;
  try {
    await rm(partial, { recursive: true, force: true });
    await mkdir(partial, { recursive: true });
    for (const file of await modelFiles(checkpoint))
      await linkOrCopy(await realpath(file), join(partial, basename(file)));
    await rm(target, { recursive: true, force: true });
    await rename(partial, target);
  } catch (error) {
    throw fileError(error, "Cannot place the model", target);
  }
}

/** What makes the model, and nothing else that lies in the folder. */
async function modelFiles(checkpoint: string): Promise<string[]> {
  const { files } = await openCheckpoint(checkpoint);
  const template = join(checkpoint, judgeTemplateFile);
  return existsSync(template) ? [...files, template] : [...files];
}

async function linkOrCopy(from: string, to: string): Promise<void> {
  try {
    await link(from, to);
  } catch (error) {
    const code = systemErrorCode(error);
    if (code !== "EXDEV" && code !== "EPERM" && code !== "ENOTSUP" && code !== "EMLINK") throw error;
    await copyFile(from, to);
  }
}
