import { Readable } from "node:stream";
import { TemporaError } from "@tempora/errors";
import { CsvError, parse } from "csv-parse";
import type { SourceRow } from "./types.ts";

/**
 * Rows of comma- or tab-separated values, streamed: a header that names the columns, quotes (which may hold line ends), a
 * byte order mark, LF or CRLF. Every value is a string.
 * @throws TemporaError naming file and row; the first row after the header is row 1.
 */
export async function* readCsv(
  bytes: AsyncIterable<Uint8Array>,
  file: string,
  delimiter: string,
): AsyncGenerator<SourceRow> {
  const parser = parse({
    delimiter,
    bom: true,
    skip_empty_lines: true,
    columns: (header: string[]) => checkHeader(header, file),
  });
  const source = Readable.from(decoded(bytes, file));
  source.on("error", (error) => parser.destroy(error));
  source.pipe(parser);
  let row = 0;
  try {
    for await (const value of parser as AsyncIterable<Record<string, string>>) {
      row += 1;
      yield { row, value };
    }
  } catch (error) {
    if (!(error instanceof CsvError)) throw error;
    throw new TemporaError(`Not valid CSV: ${error.message}`, {
      // Rows before it may still wait in the parser: it has counted them.
      where: { file, row: 1 + ("records" in error ? Number(error.records) : row) },
      remedy: 'Give every row as many values as the header; put values with line ends, commas or " into quotes.',
      cause: error,
    });
  } finally {
    source.destroy();
    parser.destroy();
  }
}

function checkHeader(header: readonly string[], file: string): string[] {
  const names = header.map((name) => name.trim());
  const wrong = names.find((name, i) => name === "" || names.indexOf(name) !== i);
  if (wrong === undefined) return names;
  throw new TemporaError(wrong === "" ? "A column has no name" : `Two columns have the name ${wrong}`, {
    where: { file, field: "header" },
    remedy: "The first line of a CSV file names its columns, each once.",
  });
}

async function* decoded(bytes: AsyncIterable<Uint8Array>, file: string): AsyncGenerator<string> {
  const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  try {
    for await (const part of bytes) yield decoder.decode(part, { stream: true });
    yield decoder.decode();
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
    throw new TemporaError("The text is not UTF-8", {
      where: { file },
      remedy: "Convert the file to UTF-8.",
      cause: error,
    });
  }
}
