import { existsSync } from "node:fs";
import { mkdir, open, readdir, rename, rm } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { fileError, systemErrorCode, TemporaError } from "@tempora/errors";
import { partialFolder, replacedFolder } from "./layout.ts";

/** Whether an existing folder with these names in it is such a model's, and may be replaced by another. */
const modelFolders = {
  checkpoint: (names: readonly string[]) =>
    names.includes("config.json") && names.some((name) => name.endsWith(".safetensors")),
  adapter: (names: readonly string[]) => names.includes("adapter_config.json"),
};
export type ModelFolder = keyof typeof modelFolders;

export interface FolderContent {
  what: ModelFolder;
  /** Writes the files; each is flushed when it returns. */
  write(folder: string): Promise<void>;
}

/**
 * Writes a folder whole or not at all: everything goes to a folder beside it, is flushed to the disk and then renamed. An
 * existing folder is replaced only when it is empty or of the same kind.
 */
export async function writeFolder(folder: string, content: FolderContent): Promise<void> {
  const target = resolve(folder);
  const partial = partialFolder(target);
  try {
    await requireReplaceable(target, content.what);
    await recoverReplaced(target);
    await rm(partial, { recursive: true, force: true });
    await mkdir(partial, { recursive: true });
    await content.write(partial);
    await syncFolder(partial);
    await takePlace(partial, target);
  } catch (error) {
    await rm(partial, { recursive: true, force: true }).catch(() => undefined);
    throw systemErrorCode(error) === undefined ? error : fileError(error, `Cannot save the ${content.what}`, folder);
  }
}

/** Writes a file and flushes it to the disk. */
export async function writeSynced(file: string, content: string | Uint8Array): Promise<void> {
  const handle = await open(file, "w");
  try {
    await handle.writeFile(content);
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** Whether a model's folder may be written here: asked before the hours that lead to it. */
export async function requireReplaceable(folder: string, what: ModelFolder): Promise<void> {
  const target = resolve(folder);
  if (!existsSync(target)) return;
  const names = await readdir(target);
  if (names.length === 0 || modelFolders[what](names)) return;
  throw new TemporaError(
    `The folder holds something else than ${/^[aeiou]/.test(what) ? "an" : "a"} ${what}, so it is not replaced`,
    { where: { file: target }, remedy: "Name an empty or a new folder." },
  );
}

/** After a crash between the two renames the previous folder comes back; after one behind them it goes. */
async function recoverReplaced(target: string): Promise<void> {
  const replaced = replacedFolder(target);
  if (!existsSync(replaced)) return;
  if (existsSync(target)) await rm(replaced, { recursive: true, force: true });
  else await rename(replaced, target);
}

async function takePlace(partial: string, target: string): Promise<void> {
  const replaced = replacedFolder(target);
  if (existsSync(target)) await rename(target, replaced);
  await rename(partial, target);
  await syncFolder(dirname(target));
  await rm(replaced, { recursive: true, force: true });
}

async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
