// Reads a Parquet file on a thread of its own: a damaged page can lead the decoder into a loop that only the end of its thread ends.
import { parentPort, workerData } from "node:worker_threads";
import { asyncBufferFromFile, parquetMetadataAsync, parquetReadObjects } from "hyparquet";
import { compressors } from "hyparquet-compressors";

/** What the thread answers each time it is asked for more. */
export type ParquetAnswer = { rows: Record<string, unknown>[] } | { failure: string } | { end: true };

// The library's own decoder drops a text's leading U+FEFF.
const utf8 = new TextDecoder("utf-8", { ignoreBOM: true });

/** One row group after the other. */
async function* groups(file: string): AsyncGenerator<Record<string, unknown>[]> {
  const buffer = await asyncBufferFromFile(file);
  const metadata = await parquetMetadataAsync(buffer);
  let row = 0;
  for (const group of metadata.row_groups) {
    const rows = Number(group.num_rows);
    const parsers = { stringFromBytes: (bytes: Uint8Array) => utf8.decode(bytes) };
    yield await parquetReadObjects({ parsers, file: buffer, metadata, compressors, rowStart: row, rowEnd: row + rows });
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

const reading = groups(workerData as string);
parentPort?.on("message", async () => {
  let answer: ParquetAnswer;
  try {
    const { value, done } = await reading.next();
    answer = done ? { end: true } : { rows: value.map((row) => plain(row) as Record<string, unknown>) };
  } catch (error) {
    answer = { failure: error instanceof Error ? error.message : String(error) };
  }
  parentPort?.postMessage(answer);
});
