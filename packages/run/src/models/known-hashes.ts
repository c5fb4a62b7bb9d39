import { readFile, stat } from "node:fs/promises";
import { join, resolve } from "node:path";
import { fileError, isObject } from "@tempora/errors";
import { checkpointHash, type HashOptions, openCheckpoint } from "@tempora/models";
import { writeWhole } from "@tempora/text";
import { sealed, unsealed } from "../store/sealed.ts";

/** By folder: the state of its files when they were hashed, and the hash. */
type Known = Record<string, { files: [path: string, size: number, modified: number][]; hash: string }>;

/**
 * checkpointHash of a model that lies outside the store. It is kept under the sizes and times of the model's files, so that the
 * gigabytes of a model are not read again at every start.
 */
export async function knownHash(store: string, folder: string, options: HashOptions): Promise<string> {
  const file = join(store, "model-hashes.json");
  const path = resolve(folder);
  const files = await fileStates(path);
  const before = (await readKnown(file))[path];
  if (before !== undefined && JSON.stringify(before.files) === JSON.stringify(files)) return before.hash;
  const hash = await checkpointHash(path, options);
  // A file that was written while it was read has another time now.
  if (JSON.stringify(await fileStates(path)) === JSON.stringify(files)) {
    await writeWhole(file, sealed({ ...(await readKnown(file)), [path]: { files, hash } }));
  }
  return hash;
}

async function fileStates(folder: string): Promise<Known[string]["files"]> {
  const { files } = await openCheckpoint(folder);
  return Promise.all(
    files.map(async (file): Promise<[string, number, number]> => {
      try {
        const { size, mtimeMs } = await stat(file);
        return [file, size, mtimeMs];
      } catch (error) {
        throw fileError(error, "Cannot read the model", file);
      }
    }),
  );
}

/** Nothing where there is none, or where it is damaged: then the model is hashed again. */
async function readKnown(file: string): Promise<Known> {
  try {
    const value = unsealed(await readFile(file, "utf8"));
    return isObject(value) ? (value as Known) : {};
  } catch {
    return {};
  }
}
