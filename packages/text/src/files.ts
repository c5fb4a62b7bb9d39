import { mkdir, open, rename, rm } from "node:fs/promises";
import { dirname } from "node:path";
import { fileError, systemErrorCode } from "@tempora/errors";

/**
 * Writes a file whole or not at all: into FILE.partial, flushed to the disk, then renamed. Missing folders are made. The
 * name of the partial file is fixed, so that one left by a killed process is overwritten by the next attempt.
 * @throws TemporaError when the place cannot be written.
 */
export async function writeWhole(file: string, content: string | Uint8Array): Promise<void> {
  await writeWholeStream(file, [content]);
}

/** `value` as indented JSON. */
export async function writeJson(file: string, value: unknown): Promise<void> {
  await writeWhole(file, `${JSON.stringify(value, null, 2)}\n`);
}

/** One JSON value a line; rows may come one by one. */
export async function writeJsonl(file: string, rows: Iterable<unknown> | AsyncIterable<unknown>): Promise<void> {
  await writeWholeStream(file, jsonLines(rows));
}

const flushLength = 1 << 20;

async function* jsonLines(rows: Iterable<unknown> | AsyncIterable<unknown>): AsyncGenerator<string> {
  let text = "";
  for await (const row of rows) {
    text += jsonLine(row);
    if (text.length >= flushLength) {
      yield text;
      text = "";
    }
  }
  yield text;
}

/** @throws TypeError for a value that JSON has no form for. */
export function jsonLine(row: unknown): string {
  const text = JSON.stringify(row);
  if (text === undefined) throw new TypeError(`A row must be a JSON value, not ${typeof row}`);
  return `${text}\n`;
}

type Content = Iterable<string | Uint8Array> | AsyncIterable<string | Uint8Array>;

/** As writeWhole, of parts that come one by one: when one cannot be had, the file stays as it was. */
export async function writeWholeStream(file: string, content: Content): Promise<void> {
  const partial = `${file}.partial`;
  try {
    await mkdir(dirname(file), { recursive: true });
    const handle = await open(partial, "w");
    try {
      for await (const part of content) await handle.writeFile(part);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(partial, file);
  } catch (error) {
    await rm(partial, { force: true }).catch(() => undefined);
    throw systemErrorCode(error) === undefined ? error : fileError(error, "Cannot write the file", file);
  }
}
