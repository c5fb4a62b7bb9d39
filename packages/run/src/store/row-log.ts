import { createHash } from "node:crypto";
import { type FileHandle, open } from "node:fs/promises";
import { join } from "node:path";
import { fileError, TemporaError } from "@tempora/errors";
import { JsonlLog, type LineFormat, type LogRow, logRows, writeWholeStream } from "@tempora/text";
import { checkedLines } from "./checked-lines.ts";
import { NumberSet, Numbers } from "./numbers.ts";
import { changedRemedy } from "./sealed.ts";

/** What result.json says of a stage's rows: all that later stages need to know of them. */
export interface SealedRows {
  count: number;
  /** SHA-256 of the file's bytes. */
  hash: string;
}

export interface RowLogOptions<T> {
  /**
   * Where a row belongs in the finished file: a whole number that no other row of the log has. It decides the order,
   * whatever order the rows arrive in, and may leave gaps.
   */
  place(row: T): number;
  /** Told, while the log is opened, every row that earlier processes left. */
  onEarlier?(row: T): void;
}

/** Rows that wait for one write: what a kill may lose of them is computed again. */
const pendingRows = 64;

/**
 * The rows of a stage: <folder>/<name>.jsonl. While work goes on they are appended as they come, and a killed process
 * leaves all that it had written; `seal` puts them in order, so that the finished file does not tell in how many
 * attempts, or in what order, it was made. In memory there are a few numbers a row, never the rows.
 */
export class RowLog<T> {
  readonly file: string;
  readonly #index: Index;
  #pending: T[] = [];

  private constructor(
    file: string,
    readonly log: JsonlLog<T>,
    index: Index,
    readonly place: (row: T) => number,
  ) {
    this.file = file;
    this.#index = index;
  }

  static async open<T>(folder: string, name: string, options: RowLogOptions<T>): Promise<RowLog<T>> {
    const file = rowFile(folder, name);
    const index = new Index();
    let opening = true;
    const onRow = ({ value, start, end }: LogRow<T>) => {
      index.wrote(options.place(value), start, end);
      if (opening) options.onEarlier?.(value);
    };
    const log = await JsonlLog.open<T>(file, onRow, checkedLines as LineFormat<T>);
    opening = false;
    return new RowLog(file, log, index, options.place);
  }

  /** Rows in the log, those included that wait to be written. */
  get count(): number {
    return this.#index.count;
  }

  has(place: number): boolean {
    return this.#index.has(place);
  }

  /** Adds a row, or does nothing and returns false where its place is taken: what is computed twice is the same twice. */
  async add(row: T): Promise<boolean> {
    const place = this.place(row);
    if (!this.#index.claim(place)) return false;
    this.#pending.push(row);
    if (this.#pending.length >= pendingRows) await this.flush();
    return true;
  }

  async flush(): Promise<void> {
    if (this.#pending.length === 0) return;
    const rows = this.#pending;
    this.#pending = [];
    await this.log.append(rows);
  }

  /** The log is complete: closes it, puts the rows in the order of their places and returns what the result says of them. */
  async seal(): Promise<SealedRows> {
    await this.close();
    const spans = this.#index.inOrder();
    const hash = createHash("sha256");
    const handle = await openRows(this.file);
    try {
      const parts = copySpans(handle, spans, (bytes) => hash.update(bytes));
      if (spans.sorted) for await (const _ of parts);
      else await writeWholeStream(this.file, parts);
    } finally {
      await handle.close();
    }
    return { count: this.count, hash: hash.digest("hex") };
  }

  /** Writes what waits, also after a failure: it is good work. */
  async close(): Promise<void> {
    try {
      await this.flush();
    } finally {
      await this.log.close();
    }
  }
}

/**
 * The rows of a sealed log in their order, one by one, for as often as it is asked.
 * @throws TemporaError at the end when the file is not the one that was sealed.
 */
export async function* sealedRows<T>(folder: string, name: string, sealed: SealedRows): AsyncGenerator<T> {
  const file = rowFile(folder, name);
  const hash = createHash("sha256");
  let count = 0;
  const onBytes = (bytes: Uint8Array) => hash.update(bytes);
  const handle = await openRows(file);
  try {
    for await (const { value } of logRows<T>(handle, file, { format: checkedLines as LineFormat<T>, onBytes })) {
      count += 1;
      yield value;
    }
  } finally {
    await handle.close();
  }
  if (count === sealed.count && hash.digest("hex") === sealed.hash) return;
  throw new TemporaError("The stage's rows are not those that were written", {
    where: { file },
    remedy: changedRemedy,
  });
}

function rowFile(folder: string, name: string): string {
  return join(folder, `${name}.jsonl`);
}

async function openRows(file: string): Promise<FileHandle> {
  try {
    return await open(file, "r");
  } catch (error) {
    throw fileError(error, "Cannot read the stage's rows", file);
  }
}

interface Spans {
  /** Whether the file's order is the rows' order. */
  sorted: boolean;
  starts: Float64Array;
  /** In bytes. */
  lengths: Uint32Array;
}

/** Where each row lies in the file and where it belongs, in 30 to 60 bytes a row. */
class Index {
  readonly #taken = new NumberSet();
  readonly #places = new Numbers(Float64Array);
  readonly #starts = new Numbers(Float64Array);
  readonly #lengths = new Numbers(Uint32Array);

  get count(): number {
    return this.#taken.size;
  }

  has(place: number): boolean {
    return this.#taken.has(place);
  }

  claim(place: number): boolean {
    if (!Number.isSafeInteger(place) || place < 0) throw new TypeError(`A row's place is ${place}, no whole number`);
    return this.#taken.add(place);
  }

  wrote(place: number, start: number, end: number): void {
    this.#taken.add(place);
    this.#places.push(place);
    this.#starts.push(start);
    this.#lengths.push(end - start);
  }

  inOrder(): Spans {
    const places = this.#places.list;
    const starts = this.#starts.list;
    const lengths = this.#lengths.list;
    const sorted = places.every((place, row) => row === 0 || (places[row - 1] as number) < place);
    if (sorted) return { sorted, starts, lengths };
    const order = Uint32Array.from(places.keys());
    order.sort((a, b) => (places[a] as number) - (places[b] as number));
    return {
      sorted,
      starts: Float64Array.from(order, (row) => starts[row] as number),
      lengths: Uint32Array.from(order, (row) => lengths[row] as number),
    };
  }
}

const copyBytes = 1 << 20;

/** The bytes of rows in the order of the spans, neighbours in one read. */
async function* copySpans(
  handle: FileHandle,
  { starts, lengths }: Spans,
  onBytes: (bytes: Uint8Array) => void,
): AsyncGenerator<Uint8Array> {
  for (let row = 0; row < starts.length; ) {
    const start = starts[row] as number;
    let end = start + (lengths[row++] as number);
    while (starts[row] === end && end - start < copyBytes) end += lengths[row++] as number;
    const bytes = await readBytes(handle, start, end);
    onBytes(bytes);
    yield bytes;
  }
}

async function readBytes(handle: FileHandle, start: number, end: number): Promise<Uint8Array> {
  const bytes = Buffer.allocUnsafe(end - start);
  for (let done = 0; done < bytes.length; ) {
    const { bytesRead } = await handle.read(bytes, done, bytes.length - done, start + done);
    if (bytesRead === 0) throw new RangeError(`the log ends at byte ${start + done}, before ${end}`);
    done += bytesRead;
  }
  return bytes;
}
