export { type HubFaults, type HubRepository, type HubRequest, startHub, type TestHub } from "./hub.ts";

import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { TemporaError } from "@tempora/errors";
import { afterAll } from "vitest";

/** Model families of the oracles, one folder each. */
export const families = ["llama", "llama3", "qwen2", "qwen3", "mistral"] as const;

const shared = resolve(import.meta.dirname, "../../../../shared");

/** A path below ../shared, beside the repository: numbers of other systems and data. @throws Error when it is missing. */
export function sharedPath(...parts: string[]): string {
  const path = join(shared, ...parts);
  if (!existsSync(path)) {
    throw new Error(
      `${path} is missing: put the folder "shared", which these tests compare with, beside the repository`,
    );
  }
  return path;
}

/** A path below ../shared/oracles: what transformers and TRL compute. @throws Error when it is missing. */
export function oracle(...parts: string[]): string {
  return sharedPath("oracles", ...parts);
}

export function readJson<T>(file: string): T {
  return JSON.parse(readFileSync(file, "utf8")) as T;
}

/** The values of a JSONL file. */
export function readLines<T>(file: string): T[] {
  return readFileSync(file, "utf8")
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line) as T);
}

/** Changes a JSON file in place. */
export function editJson(file: string, edit: (value: Record<string, unknown>) => void): void {
  const value = readJson<Record<string, unknown>>(file);
  edit(value);
  writeFileSync(file, JSON.stringify(value));
}

const scratches: string[] = [];
afterAll(() => Promise.all(scratches.splice(0).map((folder) => rm(folder, { recursive: true, force: true }))));

/** A fresh folder; it is removed when its file of tests is done. */
export async function scratch(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "tempora-test-"));
  scratches.push(folder);
  return folder;
}

/** A file of that name and content in a fresh folder. */
export async function put(name: string, content: string | Uint8Array): Promise<string> {
  const file = join(await scratch(), name);
  await writeFile(file, content);
  return file;
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
