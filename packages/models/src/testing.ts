import { existsSync } from "node:fs";
import { cp, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { TemporaError } from "@tempora/errors";
import { afterAll } from "vitest";

/** Families of the oracles, one folder each. */
export const families = ["llama", "llama3", "qwen2", "qwen3", "mistral"] as const;

const oracles = resolve(import.meta.dirname, "../../../../shared/oracles");

/** A path under ../shared/oracles, beside the repository. @throws Error when the oracles are not there. */
export function oracle(...parts: string[]): string {
  const path = join(oracles, ...parts);
  if (!existsSync(path)) throw new Error(`These tests compare with ${path}, which is missing: put the oracles there`);
  return path;
}

const scratches: string[] = [];
afterAll(() => Promise.all(scratches.splice(0).map((folder) => rm(folder, { recursive: true, force: true }))));

/** A fresh folder for one test; it is removed when its file of tests is done. */
export async function scratch(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "tempora-models-"));
  scratches.push(folder);
  return folder;
}

/** A copy of an oracle checkpoint that a test may damage. */
export async function copyOracle(family: string, which: string): Promise<string> {
  const folder = join(await scratch(), which);
  const source = oracle(family, which);
  await mkdir(folder);
  await cp(source, folder, { recursive: true });
  return folder;
}

/** Changes a JSON file in place. */
export async function editJson(file: string, edit: (value: Record<string, unknown>) => void): Promise<void> {
  const value = JSON.parse(await readFile(file, "utf8")) as Record<string, unknown>;
  edit(value);
  await writeFile(file, JSON.stringify(value));
}

/** The TemporaError that `work` ends in. */
export async function failure(work: () => unknown): Promise<TemporaError> {
  try {
    await work();
  } catch (error) {
    if (error instanceof TemporaError) return error;
    throw error;
  }
  throw new Error("It should have failed");
}
