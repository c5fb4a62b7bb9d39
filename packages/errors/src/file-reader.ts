import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { fileError, systemErrorCode } from "./files.ts";

/** A file's content by its name; null where there is none. What belongs together need not lie in a folder. */
export type FileReader = (name: string) => Promise<Uint8Array | null>;

/** Reads the files of a folder. */
export function folderReader(folder: string): FileReader {
  return async (name) => {
    const file = join(folder, name);
    try {
      return await readFile(file);
    } catch (error) {
      if (systemErrorCode(error) === "ENOENT") return null;
      throw fileError(error, "Cannot read the file", file);
    }
  };
}
