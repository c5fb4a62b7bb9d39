export { describeRealModel } from "./describe-real-model.ts";
export { type HubFaults, type HubRepository, type HubRequest, startHub, type TestHub } from "./hub.ts";
export {
  hasLlamaCpp,
  type LlamaModel,
  type LlamaOptions,
  llamaCppDifferences,
  llamaCppFolder,
  openInLlamaCpp,
  type ScoredTokens,
} from "./llama-cpp.ts";
export { realModel, realModelFile } from "./real-model.ts";

import { existsSync, mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { TemporaError } from "@tempora/errors";
import { afterAll } from "vitest";
import { writeOlderCheckpoint } from "./older-checkpoint.ts";

export { byteEndId, byteModelConfig, byteNames, byteStartId, byteTokenizerFiles } from "./byte-tokenizer.ts";

/** Model families of the oracles, one folder each. */
export const families = ["llama", "llama3", "qwen2", "qwen3", "mistral"] as const;

/** Size of the vocabulary that all families share. */
export const vocabularySize = 331;

/** A path below test/oracles: what transformers, PEFT and TRL compute. @throws Error when it is missing. */
export function oracle(...parts: string[]): string {
  const path = resolve(import.meta.dirname, "../../../test/oracles", ...parts);
  if (!existsSync(path)) throw new Error(`${path} is missing: see test/oracles/README.md`);
  return path;
}

const older = new Map<string, string>();

/** The family's reference in bf16, in shards with an index and an older config.json; made when first asked for. */
export function olderReference(family: string): string {
  let folder = older.get(family);
  if (folder === undefined) {
    folder = join(scratchSync(), "reference-bf16-sharded");
    writeOlderCheckpoint(oracle(family, "reference"), folder);
    older.set(family, folder);
  }
  return folder;
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

function scratchSync(): string {
  const folder = mkdtempSync(join(tmpdir(), "tempora-test-"));
  scratches.push(folder);
  return folder;
}

/** A fresh folder; it is removed when its file of tests is done. */
export async function scratch(): Promise<string> {
  return scratchSync();
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
