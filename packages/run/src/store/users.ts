import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { readdir, readFile } from "node:fs/promises";
import { basename, dirname, isAbsolute, join, relative, resolve } from "node:path";
import { hashJson, isObject, type Json } from "@tempora/errors";
import { writeWhole } from "@tempora/text";

/** A run that asks a store for its stages. */
export interface StoreUser {
  /** Its folder. */
  run: string;
  /** `runIdentity` of its code and settings. */
  identity: string;
}

/** What a stage keeps of a run that asked for it. */
export interface StageUse extends StoreUser {
  /** What the stage is to that run: "training F1 from M0"; more than one thing where strategies share it. */
  labels: string[];
  /** Whether the run needs the stage's model no more once the run has finished. */
  temporary: boolean;
}

/** What a stage is to the run that asks for it. */
export interface Asked {
  label?: string | undefined;
  temporary?: boolean | undefined;
}

const usesFolder = "used-by";

export function runIdentity(codeVersion: string, settings: Json): string {
  return hashJson({ codeVersion, settings });
}

/** Keeps who asks for a stage, by the way from the folder of the runs, so that the folder may be moved. */
export async function markUser(stage: string, user: StoreUser | undefined, asked: Asked = {}): Promise<void> {
  if (user === undefined) return;
  const { label = "", temporary = false } = asked;
  const run = relative(runsOf(stage), resolve(user.run));
  const name = `${basename(run)}-${createHash("sha256").update(run).digest("hex").slice(0, 12)}.json`;
  const file = join(stage, usesFolder, name);
  const earlier = await readUse(file);
  const before = earlier?.identity === user.identity ? earlier : null;
  const kept = temporary && (before?.temporary ?? true);
  if (before?.labels.includes(label) && before.temporary === kept) return;
  const labels = [...new Set([...(before?.labels ?? []), label])];
  const use: StageUse = { run, identity: user.identity, labels, temporary: kept };
  await writeWhole(file, `${JSON.stringify(use)}\n`);
}

/** <runs>/.store/<kind>/<key> */
function runsOf(stage: string): string {
  return dirname(dirname(dirname(resolve(stage))));
}

/** Null where there is none, or none that can be read: then it is nobody's. */
async function readUse(file: string): Promise<StageUse | null> {
  try {
    const value: unknown = JSON.parse(await readFile(file, "utf8"));
    if (!isObject(value) || typeof value.run !== "string" || !Array.isArray(value.labels)) return null;
    return { ...(value as unknown as StageUse), temporary: value.temporary === true };
  } catch {
    return null;
  }
}

/** The runs that have asked for a stage, with their folders as they are now. */
export async function stageUses(stage: string): Promise<StageUse[]> {
  const folder = join(stage, usesFolder);
  const names = await readdir(folder).catch(() => []);
  const uses = (await Promise.all(names.map((name) => readUse(join(folder, name))))).filter((use) => use !== null);
  const byRun = new Map<string, StageUse>();
  // Relative ones last: what a run said last of a stage counts.
  uses.sort((a, b) => Number(isAbsolute(b.run)) - Number(isAbsolute(a.run)));
  for (const use of uses) {
    const run = runFolder(stage, use.run);
    byRun.set(run, { ...use, run });
  }
  return [...byRun.values()];
}

/** Earlier versions wrote absolute paths: a run that is not there any more is looked for beside the store. */
function runFolder(stage: string, run: string): string {
  const runs = runsOf(stage);
  return isAbsolute(run) && !existsSync(run) ? join(runs, basename(run)) : resolve(runs, run);
}
