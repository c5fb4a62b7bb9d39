import { existsSync } from "node:fs";
import { cp, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { TemporaError } from "@tempora/errors";
import { afterAll } from "vitest";

/** Families of the oracles, one folder each. */
export const families = ["llama", "llama3", "qwen2", "qwen3", "mistral"] as const;

const shared = resolve(import.meta.dirname, "../../../../shared");

/** A path under ../shared, beside the repository. @throws Error when it is not there. */
export function sharedFile(...parts: string[]): string {
  const path = join(shared, ...parts);
  if (!existsSync(path)) throw new Error(`These tests need ${path}, which is missing: put the shared files there`);
  return path;
}

/** A path under ../shared/oracles. */
export function oracle(...parts: string[]): string {
  return sharedFile("oracles", ...parts);
}

const scratches: string[] = [];
afterAll(() => Promise.all(scratches.splice(0).map((folder) => rm(folder, { recursive: true, force: true }))));

/** A fresh folder for one test; it is removed when its file of tests is done. */
export async function scratch(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "tempora-text-"));
  scratches.push(folder);
  return folder;
}

/** A file of that name and content in a fresh folder. */
export async function put(name: string, content: string | Uint8Array): Promise<string> {
  const file = join(await scratch(), name);
  await writeFile(file, content);
  return file;
}

/** A copy of the oracles' tokenizer folder, without weights, that a test may change. */
export async function copyTokenizer(
  edit: (config: Record<string, unknown>, tokenizer: Record<string, unknown>) => void = () => undefined,
): Promise<string> {
  const folder = join(await scratch(), "tokenizer");
  await mkdir(folder);
  for (const name of ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"]) {
    await cp(oracle("llama", "policy", name), join(folder, name));
  }
  const read = async (name: string) =>
    JSON.parse(await readFile(join(folder, name), "utf8")) as Record<string, unknown>;
  const [config, tokenizer] = [await read("tokenizer_config.json"), await read("tokenizer.json")];
  edit(config, tokenizer);
  await writeFile(join(folder, "tokenizer_config.json"), JSON.stringify(config));
  await writeFile(join(folder, "tokenizer.json"), JSON.stringify(tokenizer));
  return folder;
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
