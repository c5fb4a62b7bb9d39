import { createReadStream } from "node:fs";
import { open, stat } from "node:fs/promises";
import { createGunzip } from "node:zlib";
import { fileError, isObject, systemErrorCode, TemporaError } from "@tempora/errors";
import { readParquet } from "./parquet.ts";
import type { SourceRow } from "./types.ts";

/**
 * Rows of a dataset by its extension: .jsonl or .ndjson (a JSON object a line), .json (a list of objects, or lines),
 * .parquet; the JSON ones also as .gz. Line ends may be CRLF, blank lines and a byte order mark are skipped.
 * @throws TemporaError naming file and row.
 */
export async function* readRows(file: string): AsyncGenerator<SourceRow> {
  const name = file.toLowerCase();
  const zipped = name.endsWith(".gz");
  const extension = (zipped ? name.slice(0, -3) : name).match(/\.[a-z0-9]+$/)?.[0] ?? "";
  await checkFile(file);
  if (extension === ".jsonl" || extension === ".ndjson") yield* readLines(file, zipped);
  else if (extension === ".json") yield* readJson(file, zipped);
  else if (extension === ".parquet" && !zipped) yield* readParquet(file);
  else {
    throw new TemporaError(`Not a dataset format that Tempora knows: "${extension}${zipped ? ".gz" : ""}"`, {
      where: { file },
      remedy: "Give a .jsonl, .json or .parquet file (the first two also as .gz).",
    });
  }
}

/** The same at once. @throws TemporaError also when the file has no row. */
export async function readAllRows(file: string): Promise<SourceRow[]> {
  const rows: SourceRow[] = [];
  for await (const row of readRows(file)) rows.push(row);
  if (rows.length === 0) {
    throw new TemporaError("The dataset is empty", { where: { file }, remedy: "Give a file with at least one row." });
  }
  return rows;
}

async function checkFile(file: string): Promise<void> {
  try {
    // Opened as well, for a file that is there but may not be read.
    await (await open(file, "r")).close();
    if ((await stat(file)).isFile()) return;
  } catch (error) {
    throw fileError(error, "Cannot read the dataset", file);
  }
  throw new TemporaError("A dataset is a file, this is a folder", {
    where: { file },
    remedy: "Name one of the files in it.",
  });
}

async function* readBytes(file: string, zipped: boolean): AsyncGenerator<Uint8Array> {
  const source = createReadStream(file, { highWaterMark: 1 << 18 });
  try {
    if (zipped) {
      const unzip = createGunzip();
      source.on("error", (error) => unzip.destroy(error));
      yield* source.pipe(unzip) as AsyncIterable<Uint8Array>;
    } else {
      yield* source as AsyncIterable<Uint8Array>;
    }
  } catch (error) {
    if (systemErrorCode(error) !== undefined && !isZipFault(error))
      throw fileError(error, "Cannot read the dataset", file);
    if (!zipped) throw error;
    throw new TemporaError(`The gzip file is damaged: ${error instanceof Error ? error.message : String(error)}`, {
      where: { file },
      remedy: "Fetch or write the file again.",
      cause: error,
    });
  } finally {
    source.destroy();
  }
}

function isZipFault(error: unknown): boolean {
  return systemErrorCode(error)?.startsWith("Z_") ?? false;
}

async function* readLines(file: string, zipped: boolean): AsyncGenerator<SourceRow> {
  let row = 0;
  for await (const line of splitLines(readBytes(file, zipped))) {
    row += 1;
    const text = decode(line, file, row);
    if (text.trim() !== "") yield { row, value: parseRow(text, file, row) };
  }
}

/** Only LF ends a line: JSON strings may hold U+2028 and the like as they are. */
async function* splitLines(source: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  let parts: Uint8Array[] = [];
  for await (const chunk of source) {
    let from = 0;
    for (let end = chunk.indexOf(0x0a); end >= 0; end = chunk.indexOf(0x0a, from)) {
      yield Buffer.concat([...parts, chunk.subarray(from, end)]);
      parts = [];
      from = end + 1;
    }
    if (from < chunk.length) parts.push(chunk.subarray(from));
  }
  if (parts.length > 0) yield Buffer.concat(parts);
}

async function* readJson(file: string, zipped: boolean): AsyncGenerator<SourceRow> {
  const parts: Uint8Array[] = [];
  for await (const part of readBytes(file, zipped)) parts.push(part);
  const text = decode(Buffer.concat(parts), file);
  if (text.trimStart().startsWith("[")) {
    const list: unknown = parseJson(text, { file });
    for (const [i, value] of (list as unknown[]).entries()) yield { row: i + 1, value: asObject(value, file, i + 1) };
    return;
  }
  // Hugging Face writes JSON lines under this extension, too.
  for (const [i, line] of text.split("\n").entries()) {
    if (line.trim() !== "") yield { row: i + 1, value: parseRow(line, file, i + 1) };
  }
}

function decode(bytes: Uint8Array, file: string, row?: number): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (error) {
    throw new TemporaError("The text is not UTF-8", {
      where: row === undefined ? { file } : { file, row },
      remedy: "Convert the file to UTF-8.",
      cause: error,
    });
  }
}

function parseRow(text: string, file: string, row: number): Record<string, unknown> {
  return asObject(parseJson(text, { file, row }), file, row);
}

function parseJson(text: string, where: { file: string; row?: number }): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new TemporaError(`Not valid JSON: ${error instanceof Error ? error.message : String(error)}`, {
      where,
      remedy: "Write one JSON object a line (.jsonl) or a list of objects (.json).",
      cause: error,
    });
  }
}

function asObject(value: unknown, file: string, row: number): Record<string, unknown> {
  if (isObject(value)) return value;
  throw new TemporaError(`A row is a JSON object, not ${Array.isArray(value) ? "a list" : JSON.stringify(value)}`, {
    where: { file, row },
    remedy: 'Write rows such as {"prompt": "...", "chosen": "...", "rejected": "..."}.',
  });
}
