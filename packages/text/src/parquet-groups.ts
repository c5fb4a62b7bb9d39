import { asyncBufferFromFile, parquetMetadataAsync, parquetReadObjects } from "hyparquet";
import { compressors } from "hyparquet-compressors";

// The library's own decoder drops a text's leading U+FEFF.
const utf8 = new TextDecoder("utf-8", { ignoreBOM: true });

/** The rows of a Parquet file, one row group after the other. What is damaged can make this throw anything or never end. */
export async function* readGroups(file: string): AsyncGenerator<Record<string, unknown>[]> {
  const buffer = await asyncBufferFromFile(file);
  const metadata = await parquetMetadataAsync(buffer);
  let row = 0;
  for (const group of metadata.row_groups) {
    const rows = Number(group.num_rows);
    const parsers = { stringFromBytes: (bytes: Uint8Array) => utf8.decode(bytes) };
    const read = { parsers, file: buffer, metadata, compressors, rowStart: row, rowEnd: row + rows };
    yield (await parquetReadObjects(read)).map((value) => plain(value) as Record<string, unknown>);
    row += rows;
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
