import { TemporaError } from "@tempora/errors";
import { asyncBufferFromFile, parquetMetadataAsync, parquetReadObjects } from "hyparquet";
import { compressors } from "hyparquet-compressors";
import type { SourceRow } from "./types.ts";

// The library's own decoder drops a text's leading U+FEFF.
const utf8 = new TextDecoder("utf-8", { ignoreBOM: true });

/** Rows of a Parquet file, one row group in memory at a time. */
export async function* readParquet(file: string): AsyncGenerator<SourceRow> {
  let row = 0;
  try {
    const buffer = await asyncBufferFromFile(file);
    const metadata = await parquetMetadataAsync(buffer);
    for (const group of metadata.row_groups) {
      const rows = Number(group.num_rows);
      const objects = await parquetReadObjects({
        parsers: { stringFromBytes: (bytes: Uint8Array) => utf8.decode(bytes) },
        file: buffer,
        metadata,
        compressors,
        rowStart: row,
        rowEnd: row + rows,
      });
      for (const value of objects) {
        row += 1;
        yield { row, value: plain(value) as Record<string, unknown> };
      }
    }
  } catch (error) {
    if (error instanceof TemporaError) throw error;
    throw new TemporaError(`Cannot read the Parquet file: ${error instanceof Error ? error.message : String(error)}`, {
      where: { file },
      remedy: "Fetch or write the file again.",
      cause: error,
    });
  }
}

/** Parquet's 64-bit integers become numbers where they fit; typed arrays become lists. */
function plain(value: unknown): unknown {
  if (typeof value === "bigint") {
    const number = Number(value);
    return Number.isSafeInteger(number) ? number : value.toString();
  }
  if (Array.isArray(value)) return value.map(plain);
  if (ArrayBuffer.isView(value) && "length" in value) return Array.from(value as unknown as ArrayLike<unknown>, plain);
  if (typeof value === "object" && value !== null && Object.getPrototypeOf(value) === Object.prototype) {
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, plain(item)]));
  }
  return value;
}
