import { existsSync } from "node:fs";
import { readdir, readFile, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { fileError, isObject, type Json, systemErrorCode, TemporaError } from "@tempora/errors";
import { tryLockFolder } from "@tempora/models";
import { runIdentity, stageUses } from "./users.ts";

/** A stage as it lies in a store. */
export interface StoredStage {
  kind: string;
  key: string;
  folder: string;
  bytes: number;
  finished: boolean;
  /** Whether it tells who asked for it: stages of earlier versions do not. */
  marked: boolean;
  /** Runs that name it as they are now: their folders, and what the stage is to them. */
  users: { run: string; labels: string[] }[];
  /** Bytes of a temporary future model that no run that names it will read again; 0: none. */
  spentModel: number;
}

const modelFolder = "model";

/** The store of a folder of runs. */
export function storeOf(runs: string): string {
  return join(runs, ".store");
}

/** Everything that lies in a store. @throws TemporaError where there is none. */
export async function storeInventory(store: string): Promise<StoredStage[]> {
  if (!existsSync(store)) {
    throw new TemporaError("There is no store", {
      where: { file: store },
      remedy: "Name the folder of the runs by --runs.",
    });
  }
  const states = new Map<string, Promise<RunState>>();
  const stateOf = (run: string) => {
    const known = states.get(run) ?? runState(run);
    states.set(run, known);
    return known;
  };
  const stages: StoredStage[] = [];
  for (const kind of await folders(store)) {
    for (const key of await folders(join(store, kind))) stages.push(await stageOf(store, kind, key, stateOf));
  }
  return stages;
}

async function stageOf(
  store: string,
  kind: string,
  key: string,
  stateOf: (run: string) => Promise<RunState>,
): Promise<StoredStage> {
  const folder = join(store, kind, key);
  const uses = await stageUses(folder);
  const states = await Promise.all(uses.map(({ run }) => stateOf(run)));
  const live = uses.filter(({ identity }, k) => states[k]?.identity === identity);
  const finished = existsSync(join(folder, "result.json"));
  const spent =
    finished &&
    live.length > 0 &&
    live.every(({ temporary }) => temporary) &&
    uses.every(({ identity }, k) => states[k]?.identity !== identity || states[k]?.finished);
  return {
    kind,
    key,
    folder,
    bytes: await size(folder),
    finished,
    marked: uses.length > 0,
    users: live.map(({ run, labels }) => ({ run, labels })),
    spentModel: spent ? await size(join(folder, modelFolder)) : 0,
  };
}

export interface Cleaned {
  /** Stages that were removed whole, and models that were removed from stages that stay. */
  stages: StoredStage[];
  models: StoredStage[];
  /** Stages that a process works on at this moment. */
  busy: StoredStage[];
  /** Stages that do not tell who asked for them. */
  unmarked: StoredStage[];
  bytes: number;
}

export interface CleanOptions {
  /** Only say what would be removed. */
  pretend: boolean;
  /** Remove stages too that do not tell who asked for them. */
  unmarked?: boolean;
}

/**
 * Removes what no run names as it is now, and the temporary future models of finished runs: their answers are kept, and their
 * training is known by its result.
 */
export async function cleanStore(store: string, { pretend, unmarked = false }: CleanOptions): Promise<Cleaned> {
  const cleaned: Cleaned = { stages: [], models: [], busy: [], unmarked: [], bytes: 0 };
  for (const stage of await storeInventory(store)) {
    const unused = stage.users.length === 0;
    if (!unused && stage.spentModel === 0) continue;
    if (!stage.marked && !unmarked) {
      cleaned.unmarked.push(stage);
      continue;
    }
    const target = unused ? stage.folder : join(stage.folder, modelFolder);
    if (!pretend && !(await removeUnlocked(stage.folder, target))) {
      cleaned.busy.push(stage);
      continue;
    }
    (unused ? cleaned.stages : cleaned.models).push(stage);
    cleaned.bytes += unused ? stage.bytes : stage.spentModel;
  }
  return cleaned;
}

async function removeUnlocked(stage: string, target: string): Promise<boolean> {
  const lock = await tryLockFolder(stage, () => {});
  if (lock === null) return false;
  try {
    await rm(target, { recursive: true, force: true });
  } catch (error) {
    throw fileError(error, "Cannot remove", target);
  } finally {
    await lock.release();
  }
  return true;
}

interface RunState {
  /** Null where there is no run any more. */
  identity: string | null;
  finished: boolean;
}

async function runState(run: string): Promise<RunState> {
  const started = await object(join(run, "started.json"));
  const { codeVersion, settings } = started;
  if (typeof codeVersion !== "string" || settings === undefined) return { identity: null, finished: false };
  const { status } = await object(join(run, "run.json"));
  return { identity: runIdentity(codeVersion, settings), finished: status === "finished" };
}

async function object(file: string): Promise<Record<string, Json | undefined>> {
  try {
    const value: unknown = JSON.parse(await readFile(file, "utf8"));
    return isObject(value) ? (value as Record<string, Json>) : {};
  } catch (error) {
    if (systemErrorCode(error) === "ENOENT" || error instanceof SyntaxError) return {};
    throw fileError(error, "Cannot read the run", file);
  }
}

async function folders(folder: string): Promise<string[]> {
  try {
    const entries = await readdir(folder, { withFileTypes: true });
    return entries.flatMap((entry) => (entry.isDirectory() ? [entry.name] : [])).sort();
  } catch (error) {
    throw fileError(error, "Cannot read the store", folder);
  }
}

/** Bytes of the files below a folder; files that go meanwhile count nothing. */
async function size(folder: string): Promise<number> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true }).catch(() => []);
  const sizes = entries.map(async (entry) => {
    if (!entry.isFile()) return 0;
    return stat(join(entry.parentPath, entry.name)).then(
      ({ size: bytes }) => bytes,
      () => 0,
    );
  });
  return (await Promise.all(sizes)).reduce((sum, bytes) => sum + bytes, 0);
}
