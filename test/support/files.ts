import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll } from "vitest";

const shared = fileURLToPath(new URL("../../../shared/", import.meta.url));

/** A file or folder of ../shared/oracles. */
export function oracle(...parts: string[]): string {
  return sharedPath("oracles", ...parts);
}

/** A path below ../shared; a test that needs it fails where it is missing. */
export function sharedPath(...parts: string[]): string {
  const path = join(shared, ...parts);
  if (!existsSync(path)) throw new Error(`${path} is missing: these tests compare with the numbers in ../shared`);
  return path;
}

export const families = ["llama", "llama3", "qwen2", "qwen3", "mistral"] as const;

export function readJson<T>(file: string): T {
  return JSON.parse(readFileSync(file, "utf8")) as T;
}

export function readLines<T>(file: string): T[] {
  return readFileSync(file, "utf8")
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line) as T);
}

/** A folder for one test file, removed at its end. */
export function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), "tempora-test-"));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}
