import { type FileHandle, mkdir, open } from "node:fs/promises";
import { dirname } from "node:path";
import { fileError, TemporaError } from "@tempora/errors";
import { jsonLine } from "./files.ts";

/** A row of a log and the bytes [start, end) that hold its line, the line end included. */
export interface LogRow<T> {
  value: T;
  start: number;
  end: number;
}

/** How rows are written and read; "read" is given a line without its end, and throws for one that was not written so: a TemporaError where it knows more of it. */
export interface LineFormat<T> {
  write(row: T): string;
  read(line: string): T;
  /** What to do about a damaged line. */
  remedy: string;
}

export const plainLines: LineFormat<unknown> = {
  write: (row) => jsonLine(row).slice(0, -1),
  read: (line) => JSON.parse(line),
  remedy: "Remove the file to do its work again.",
};

/**
 * A JSONL file that grows while work goes on and survives a kill at any moment: a row counts once its line end is
 * written, and a torn last line is cut off when the file is opened again. Rows are not kept in memory.
 */
export class JsonlLog<T> {
  private queue: Promise<void> = Promise.resolve();
  private closed = false;

  private constructor(
    readonly file: string,
    private readonly handle: FileHandle,
    private size: number,
    private readonly onRow: (row: LogRow<T>) => void,
    private readonly format: LineFormat<T>,
  ) {}

  /**
   * Opens or makes the file. `onRow` is told every row as soon as it lies in the file: first, before this returns, those of
   * earlier processes, then each appended one.
   * @throws TemporaError for a damaged row before the last one.
   */
  static async open<T>(
    file: string,
    onRow: (row: LogRow<T>) => void = () => {},
    format: LineFormat<T> = plainLines as LineFormat<T>,
  ): Promise<JsonlLog<T>> {
    let handle: FileHandle | undefined;
    try {
      await mkdir(dirname(file), { recursive: true });
      handle = await openForUpdate(file);
      let size = 0;
      for await (const row of logRows<T>(handle, file, { format })) {
        onRow(row);
        size = row.end;
      }
      if (size < (await handle.stat()).size) await handle.truncate(size);
      return new JsonlLog<T>(file, handle, size, onRow, format);
    } catch (error) {
      await handle?.close();
      throw fileError(error, "Cannot open the log", file);
    }
  }

  /** Adds rows in one write; calls queue up. When it fails, the file keeps the rows it had. */
  async append(rows: readonly T[]): Promise<void> {
    if (this.closed) throw new Error(`${this.file} was closed before this append`);
    const lines = rows.map((row) => Buffer.from(`${this.format.write(row)}\n`));
    const done = this.queue.then(() => this.write(lines, rows));
    this.queue = done.catch(() => undefined);
    await done;
  }

  /** Flushes to the disk and closes; closing twice is harmless. */
  async close(): Promise<void> {
    if (this.closed) return;
    this.closed = true;
    await this.queue;
    try {
      await this.handle.sync();
    } catch (error) {
      throw fileError(error, "Cannot write the log", this.file);
    } finally {
      await this.handle.close();
    }
  }

  private async write(lines: readonly Uint8Array[], rows: readonly T[]): Promise<void> {
    const bytes = Buffer.concat(lines);
    try {
      let done = 0;
      while (done < bytes.length) {
        const { bytesWritten } = await this.handle.write(bytes, done, bytes.length - done, this.size + done);
        done += bytesWritten;
      }
    } catch (error) {
      await this.handle.truncate(this.size).catch(() => undefined);
      throw fileError(error, "Cannot write the log", this.file);
    }
    for (const [index, value] of rows.entries()) {
      const start = this.size;
      this.size += (lines[index] as Uint8Array).length;
      this.onRow({ value, start, end: this.size });
    }
  }
}

export interface LogReading<T> {
  format?: LineFormat<T>;
  /** Told the bytes of the file as they are read. */
  onBytes?(bytes: Uint8Array): void;
}

/**
 * The rows of a log one by one; what follows the last line end is no row.
 * @throws TemporaError for a line that the format cannot read.
 */
export async function* logRows<T>(
  handle: FileHandle,
  file: string,
  { format = plainLines as LineFormat<T>, onBytes = () => {} }: LogReading<T> = {},
): AsyncGenerator<LogRow<T>> {
  let row = 0;
  let start = 0;
  for await (const line of wholeLines(handle, onBytes)) {
    row += 1;
    const end = start + line.length;
    yield { value: parseRow(line, format, file, row), start, end };
    start = end;
  }
}

const chunkBytes = 1 << 18;

/** Lines with their ends. */
async function* wholeLines(handle: FileHandle, onBytes: (bytes: Uint8Array) => void): AsyncGenerator<Uint8Array> {
  let rest: Uint8Array[] = [];
  for (let position = 0; ; ) {
    const { bytesRead, buffer } = await handle.read(Buffer.allocUnsafe(chunkBytes), 0, chunkBytes, position);
    if (bytesRead === 0) return;
    position += bytesRead;
    const chunk = buffer.subarray(0, bytesRead);
    onBytes(chunk);
    let from = 0;
    for (let end = chunk.indexOf(0x0a); end >= 0; end = chunk.indexOf(0x0a, from)) {
      const last = chunk.subarray(from, end + 1);
      yield rest.length === 0 ? last : Buffer.concat([...rest, last]);
      rest = [];
      from = end + 1;
    }
    if (from < chunk.length) rest.push(chunk.subarray(from));
  }
}

async function openForUpdate(file: string): Promise<FileHandle> {
  try {
    return await open(file, "r+");
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return open(file, "w+");
    throw error;
  }
}

const utf8 = new TextDecoder();

function parseRow<T>(line: Uint8Array, format: LineFormat<T>, file: string, row: number): T {
  try {
    return format.read(utf8.decode(line.subarray(0, -1)));
  } catch (error) {
    if (error instanceof TemporaError) throw error.at({ file, row });
    throw new TemporaError("This row of the log is damaged", {
      where: { file, row },
      remedy: format.remedy,
      cause: error,
    });
  }
}
