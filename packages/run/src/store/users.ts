import { createHash } from "node:crypto";
import { readdir, readFile } from "node:fs/promises";
import { basename, join, resolve } from "node:path";
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
}

const usesFolder = "used-by";

export function runIdentity(codeVersion: string, settings: Json): string {
  return hashJson({ codeVersion, settings });
}

export async function markUser(stage: string, user: StoreUser | undefined, label = ""): Promise<void> {
  if (user === undefined) return;
  const run = resolve(user.run);
  const name = `${basename(run)}-${createHash("sha256").update(run).digest("hex").slice(0, 12)}.json`;
  const file = join(stage, usesFolder, name);
  const before = await readUse(file);
  const labels = before?.identity === user.identity ? before.labels : [];
  if (labels.includes(label)) return;
  const use: StageUse = { run, identity: user.identity, labels: [...labels, label] };
  await writeWhole(file, `${JSON.stringify(use)}\n`);
}

/** Null where there is none, or none that can be read: then it is nobody's. */
async function readUse(file: string): Promise<StageUse | null> {
  try {
    const value: unknown = JSON.parse(await readFile(file, "utf8"));
    return isObject(value) && typeof value.run === "string" && Array.isArray(value.labels)
      ? (value as unknown as StageUse)
      : null;
  } catch {
    return null;
  }
}

/** The runs that have asked for a stage. */
export async function stageUses(stage: string): Promise<StageUse[]> {
  const folder = join(stage, usesFolder);
  const names = await readdir(folder).catch(() => []);
  const uses = await Promise.all(names.map((name) => readUse(join(folder, name))));
  return uses.filter((use) => use !== null);
}
