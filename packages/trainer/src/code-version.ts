import { createHash } from "node:crypto";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { fileError, systemErrorCode } from "@tempora/errors";

/** Folders whose sources decide the outputs of a run, relative to the project. */
const folders = [
  "native/src",
  "packages/engine/src",
  "packages/models/src",
  "packages/preferences/src",
  "packages/text/src",
  "packages/trainer/src",
  "packages/world/src",
];

/**
 * SHA-256 over the sources that decide a run's outputs: part of every stage's key, so that a result of other code is
 * never taken for one of this.
 */
export async function codeVersion(): Promise<string> {
  const root = join(import.meta.dirname, "..", "..", "..");
  const hash = createHash("sha256");
  for (const folder of folders) {
    for (const file of await sources(join(root, folder))) {
      hash.update(`${folder}/${file}\0`);
      hash.update(await readFile(join(root, folder, file)));
    }
  }
  return hash.digest("hex");
}

async function sources(folder: string): Promise<string[]> {
  try {
    const names = await readdir(folder, { recursive: true });
    return names.filter((name) => /\.(ts|h|cpp|cu|cuh)$/.test(name) && !name.endsWith(".test.ts")).sort();
  } catch (error) {
    // An installed package may come without the native sources: its version is then in the packages' own.
    if (systemErrorCode(error) === "ENOENT") return [];
    throw fileError(error, "Cannot read the sources", folder);
  }
}
