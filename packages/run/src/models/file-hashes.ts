import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { fileError, TemporaError } from "@tempora/errors";
import { changedRemedy } from "../store/sealed.ts";

/** SHA-256 of the files of a folder, by their names. */
export type FileHashes = Readonly<Record<string, string>>;

/** Of a model that a stage has saved: what its result says of it. */
export async function fileHashes(folder: string): Promise<FileHashes> {
  const names = (await readdir(folder)).sort();
  const hashes: Record<string, string> = {};
  for (const name of names) hashes[name] = await hashOf(join(folder, name));
  return hashes;
}

/** @throws TemporaError when a file is not the one that was saved, or is not there */
export async function requireFiles(folder: string, hashes: FileHashes): Promise<void> {
  for (const [name, hash] of Object.entries(hashes)) {
    const file = join(folder, name);
    if ((await hashOf(file)) === hash) continue;
    throw new TemporaError("The model is not the one that was saved", { where: { file }, remedy: changedRemedy });
  }
}

/** SHA-256 of a file. */
export async function hashOf(file: string): Promise<string> {
  const hash = createHash("sha256");
  try {
    for await (const chunk of createReadStream(file, { highWaterMark: 1 << 22 })) hash.update(chunk as Uint8Array);
  } catch (error) {
    throw fileError(error, "Cannot read the file", file);
  }
  return hash.digest("hex");
}
