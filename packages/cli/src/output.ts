import { randomUUID } from "node:crypto";
import { existsSync, realpathSync, statSync } from "node:fs";
import { mkdir, open, rm } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { fileError, TemporaError } from "@tempora/errors";
import { type ModelFolder, requireReplaceable } from "@tempora/models";

/**
 * Makes sure, before any work, that a file can be written here at the end: its folder exists (it is made) and takes
 * files, and it is not one of the inputs.
 */
export async function claimFile(option: string, file: string, inputs: readonly string[]): Promise<string> {
  const path = resolve(file);
  refuseInput(option, path, inputs);
  if (existsSync(path) && statSync(path).isDirectory()) {
    throw new TemporaError(`${option} names a folder`, { where: { file }, remedy: "Name a file to write." });
  }
  await probeFolder(dirname(path), `Cannot write ${option} there`, file);
  return path;
}

/** The same for a model's folder. An existing one is replaced only if it is empty or holds a model of the same kind. */
export async function claimFolder(
  option: string,
  folder: string,
  { inputs, what }: { inputs: readonly string[]; what: ModelFolder },
): Promise<string> {
  const path = resolve(folder);
  refuseInput(option, path, inputs);
  if (existsSync(path) && !statSync(path).isDirectory()) {
    throw new TemporaError(`${option} names a file`, { where: { file: folder }, remedy: "Name a folder to write." });
  }
  await requireReplaceable(path, what);
  await probeFolder(dirname(path), `Cannot write ${option} there`, folder);
  return path;
}

function refuseInput(option: string, path: string, inputs: readonly string[]): void {
  const same = inputs.find((input) => realPath(input) === realPath(path));
  if (same === undefined) return;
  throw new TemporaError(`${option} is the same as an input`, {
    where: { file: same },
    remedy: `Name another place for ${option}: the input is not overwritten.`,
  });
}

function realPath(path: string): string {
  const full = resolve(path);
  return existsSync(full) ? realpathSync(full) : full;
}

async function probeFolder(folder: string, action: string, named: string): Promise<void> {
  const probe = join(folder, `.tempora-${randomUUID()}`);
  try {
    await mkdir(folder, { recursive: true });
    await (await open(probe, "wx")).close();
    await rm(probe);
  } catch (error) {
    throw fileError(error, action, named);
  }
}
