import { stat } from "node:fs/promises";
import { join } from "node:path";
import { fileError, type Json } from "@tempora/errors";
import { adapterFiles, type Checkpoint } from "@tempora/models";

/**
 * What tells whether a model is the one that work was begun with: path, size and time of each of its files, which a file that
 * was changed does not keep. Hashing gigabytes would take longer than much of the work.
 */
export async function modelIdentity({ files }: Checkpoint, adapter: string | null): Promise<Json> {
  const all = [...files, ...(adapter === null ? [] : adapterFiles(adapter))];
  return Promise.all(
    all.map(async (file) => {
      try {
        const { size, mtimeMs } = await stat(file);
        return [join(file), size, mtimeMs];
      } catch (error) {
        throw fileError(error, "Cannot read the model", file);
      }
    }),
  );
}
