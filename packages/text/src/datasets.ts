import { createReadStream } from "node:fs";
import { createGunzip } from "node:zlib";
import { fileError, isObject, systemErrorCode, TemporaError } from "@tempora/errors";
import { type Columns, renameColumns } from "./columns.ts";
import { readCsv } from "./csv.ts";
import { dataEnding, dataEndings, datasetFiles } from "./dataset-files.ts";
import { type RowKind, translateRow } from "./formats.ts";
import { readParquet } from "./parquet.ts";
import type { SourceRow } from "./types.ts";

export interface ReadOptions {
  /** What the rows are read as: those in the formats of other tools are translated to TRL's fields. Default: as they are. */
  as?: RowKind;
  columns?: Columns | null | undefined;
  /** Told once of every format that was recognised, with the path of the dataset. */
  note?(text: string): void;
}

/**
 * Rows of a dataset: of a file by its ending, of all shards in a folder, or of the files that a pattern matches. Endings are
 * .jsonl or .ndjson (a JSON object a line), .json (a list of objects, or lines), .csv, .tsv and .parquet; all but the last
 * also with .gz. Line ends may be CRLF, blank lines and a byte order mark are skipped.
 * @throws TemporaError naming file and row.
 */
export async function* readRows(path: string, options: ReadOptions = {}): AsyncGenerator<SourceRow> {
  const { as, columns, note } = options;
  const told = new Set<string>();
  const files = await datasetFiles(path);
  for (const file of files) {
    for await (const read of readFile(file)) {
      const source = file === path ? read : { ...read, file };
      const renamed = (columns ?? null) === null ? source : renameColumns(source, path, columns as Columns);
      if (as === undefined) {
        yield renamed;
        continue;
      }
      const { row, format } = translateRow(renamed, path, as);
      if (format !== null && !told.has(format)) {
        told.add(format);
        note?.(`${path} is read as ${format}.`);
      }
      yield row;
    }
  }
}

/** The same at once. @throws TemporaError also when there is no row. */
export async function readAllRows(path: string, options: ReadOptions = {}): Promise<SourceRow[]> {
  const rows: SourceRow[] = [];
  for await (const row of readRows(path, options)) rows.push(row);
  if (rows.length === 0) {
    throw new TemporaError("The dataset is empty", {
      where: { file: path },
      remedy: "Give a file with at least one row.",
    });
  }
  return rows;
}

function readFile(file: string): AsyncGenerator<SourceRow> {
  const { ending, zipped } = dataEnding(file) ?? {};
  switch (ending) {
    case ".jsonl":
    case ".ndjson":
      return readLines(file, zipped === true);
    case ".json":
      return readJson(file, zipped === true);
    case ".csv":
      return readCsv(readBytes(file, zipped === true), file, ",");
    case ".tsv":
      return readCsv(readBytes(file, zipped === true), file, "\t");
    case ".parquet":
      return readParquet(file);
    case undefined: {
      const unknown = /(?:\.[a-z0-9]+)?(?:\.gz)?$/.exec(file.toLowerCase())?.[0] ?? "";
      throw new TemporaError(`Not a dataset format that Tempora knows: "${unknown}"`, {
        where: { file },
        remedy: `Give a file that ends in ${dataEndings.join(", ")} (all but the last also with .gz), or a folder of them.`,
      });
    }
  }
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
