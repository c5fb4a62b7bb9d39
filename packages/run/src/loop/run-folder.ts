import { constants, existsSync } from "node:fs";
import { copyFile, mkdir, readdir, readFile, realpath, rename, rm, stat, utimes } from "node:fs/promises";
import { basename, join } from "node:path";
import { canonical, fileError, isObject, type Json, systemErrorCode, TemporaError } from "@tempora/errors";
import { adapterFiles, isAdapterFolder, openCheckpoint } from "@tempora/models";
import { strategyNames } from "@tempora/preferences";
import { dayOf, dayText, writeJson } from "@tempora/text";
import { requireFiles } from "../models/file-hashes.ts";
import type { WholeModel } from "../models/model-ref.ts";
import { liveFileName } from "../results/live-file.ts";
import type { RunResult } from "../results/results.ts";
import { judgeTemplateFile } from "../settings/judge-template.ts";
import { makeFolder } from "../store/store.ts";

/** What people keep of a run: a folder that holds none of it may become that of another run. */
const results = ["run.json", "report.html", "iterations", "evaluation", ...strategyNames];

/** Everything that a run writes into its folder. */
const ownEntries = [...results, "started.json", "events.jsonl", "timings.log", liveFileName, "logs", "models"];

const startedFile = "started.json";

/** Which run a folder is of: settings by which code. */
export interface RunIdentity {
  codeVersion: string;
  settings: Record<string, Json>;
}

export interface RunChoices {
  /** Replaces what a run of other settings or other code has left. */
  overwrite?: boolean | undefined;
  /** Goes on with the stages that earlier code has begun. */
  keepStages?: boolean | undefined;
}

/** started.json: written before any work, so that a run that was killed in its first hours is known too. */
interface Started {
  date?: string;
  codeVersion?: string;
  /** Versions of the code that began the run before, the oldest first. */
  earlierCode?: string[];
  /** Those of them whose stages are used. */
  keptCode?: string[];
  settings?: Record<string, Json>;
}

/**
 * Prepares the folder for a run that is fresh, or goes on. The files of a run with other settings or other code are results
 * of somebody: they go only by `overwrite`. Returns the versions of earlier code whose stages are used.
 * @throws TemporaError when results of another run lie there, naming what differs.
 */
export async function prepareRunFolder(
  folder: string,
  identity: RunIdentity,
  choices: RunChoices = {},
): Promise<string[]> {
  await makeFolder(folder);
  const started = await readObject<Started>(join(folder, startedFile));
  const result = await readObject<RunResult>(join(folder, "run.json"));
  const before = {
    codeVersion: result.codeVersion ?? started.codeVersion ?? null,
    settings: (result.settings ?? started.settings ?? null) as Record<string, Json> | null,
  };
  const changed = before.settings === null ? [] : differences(before.settings, identity.settings, choices);
  const otherCode = before.codeVersion !== null && before.codeVersion !== identity.codeVersion;
  const refused = otherCode && choices.keepStages !== true ? [...changed, "the code"] : changed;
  const earlier = started.earlierCode ?? [];
  if (otherCode && before.codeVersion !== null) earlier.push(before.codeVersion);
  const earlierCode = [...new Set(earlier)].filter((code) => code !== identity.codeVersion);
  if (refused.length > 0) {
    if (choices.overwrite !== true && results.some((name) => existsSync(join(folder, name)))) {
      throw anotherRun(folder, refused, changed.length === 0);
    }
    for (const name of ownEntries) await rm(join(folder, name), { recursive: true, force: true });
  }
  const goesOn = refused.length === 0 && started.date !== undefined ? { date: started.date } : {};
  const keptCode = choices.keepStages === true ? earlierCode : refused.length === 0 ? (started.keptCode ?? []) : [];
  await writeStarted(folder, { ...goesOn, ...identity, earlierCode, keptCode });
  return keptCode;
}

function anotherRun(folder: string, differing: readonly string[], codeAlone: boolean): TemporaError {
  const keep = codeAlone ? "--keep-stages goes on with what the earlier code has finished, " : "";
  return new TemporaError(`Another run of this name has results here; what differs: ${differing.join(", ")}`, {
    where: { file: folder },
    remedy: `Choose another name with --run; ${keep}--overwrite replaces its models, pairs and reports.`,
  });
}

/** The paths of the settings that differ. An upgrade may know settings that the run had not: those are no difference. */
function differences(
  before: Record<string, Json>,
  now: Record<string, Json>,
  { keepStages }: RunChoices,
  path = "",
): string[] {
  return Object.keys(now).flatMap((key) => {
    const [old, given] = [before[key], now[key] ?? null];
    if (old === undefined && keepStages === true) return [];
    if (isObject(old) && isObject(given)) {
      return differences(old as Record<string, Json>, given as Record<string, Json>, { keepStages }, `${path}${key}.`);
    }
    return canonical(old ?? null) === canonical(given) ? [] : [`${path}${key}`];
  });
}

/**
 * The day that templates which ask for the date are told: the given one, else that of the run's first start. A run that is
 * resumed after midnight goes on with the prompts that it began with.
 */
export async function startedOn(folder: string, given: string | null): Promise<Date> {
  const file = join(folder, startedFile);
  const started = await readObject<Started>(file);
  const known = typeof started.date === "string" && dayOf(started.date) !== null ? started.date : null;
  const day = given ?? known ?? dayText(new Date());
  if (given === null && known === null) await writeStarted(folder, { ...started, date: day });
  return dayOf(day) as Date;
}

/** In one order of the fields, whoever writes: the same run has the same bytes. */
async function writeStarted(folder: string, { date, ...others }: Started): Promise<void> {
  await writeJson(join(folder, startedFile), { date, ...others });
}

/** A file's object; nothing where there is none, or where it is not JSON: then it is not of our making, and written anew. */
async function readObject<T extends object>(file: string): Promise<Partial<T>> {
  try {
    const value: unknown = JSON.parse(await readFile(file, "utf8"));
    return isObject(value) ? (value as Partial<T>) : {};
  } catch (error) {
    if (systemErrorCode(error) === "ENOENT" || error instanceof SyntaxError) return {};
    throw fileError(error, "Cannot read the run", file);
  }
}

export async function writeRun(folder: string, result: RunResult): Promise<void> {
  await writeJson(join(folder, "run.json"), result);
}

/**
 * Shows a checkpoint of the store in the run folder: by copies that share the disk's blocks where the file system can, so
 * that nobody who edits them there edits the store. What lies there already, untouched, is not copied again.
 */
export async function placeModel({ folder: checkpoint, files: hashes }: WholeModel, target: string): Promise<void> {
  const partial = `${target}.partial`;
  try {
    const shown = await modelFiles(checkpoint);
    const names = shown.map((file) => basename(file));
    const files = await Promise.all(shown.map((file) => realpath(file)));
    await rm(partial, { recursive: true, force: true });
    if (await isPlaced(files, names, target)) return;
    if (hashes !== undefined) await requireFiles(checkpoint, hashes);
    await mkdir(partial, { recursive: true });
    for (const [k, file] of files.entries()) await copyAsIs(file, join(partial, names[k] as string));
    await rm(target, { recursive: true, force: true });
    await rename(partial, target);
  } catch (error) {
    throw fileError(error, "Cannot place the model", target);
  }
}

/** What makes the model, and nothing else that lies in the folder. */
async function modelFiles(checkpoint: string): Promise<string[]> {
  const files = isAdapterFolder(checkpoint) ? adapterFiles(checkpoint) : (await openCheckpoint(checkpoint)).files;
  const template = join(checkpoint, judgeTemplateFile);
  return existsSync(template) ? [...files, template] : [...files];
}

/** Copies with the time of the last change, by which an edited copy is told from an untouched one. */
async function copyAsIs(from: string, to: string): Promise<void> {
  await copyFile(from, to, constants.COPYFILE_FICLONE);
  const { atime, mtime } = await stat(from);
  await utimes(to, atime, mtime);
}

async function isPlaced(files: readonly string[], names: readonly string[], target: string): Promise<boolean> {
  if (!existsSync(target) || (await readdir(target)).length !== files.length) return false;
  for (const [k, file] of files.entries()) {
    const copy = join(target, names[k] as string);
    if (!existsSync(copy)) return false;
    const [original, placed] = [await stat(file), await stat(copy)];
    // A hard link to the store is not a copy.
    if (original.ino === placed.ino && original.dev === placed.dev) return false;
    // Times are set to whole milliseconds, or better.
    if (original.size !== placed.size || Math.abs(original.mtimeMs - placed.mtimeMs) >= 2) return false;
  }
  return true;
}
