import { type FileHandle, mkdir, open } from "node:fs/promises";
import { dirname } from "node:path";
import { fileError, TemporaError } from "@tempora/errors";
import { jsonLine } from "./files.ts";

/**
 * A JSONL file that grows while work goes on and survives a kill at any moment: a row counts once its line end is
 * written, and a torn last line is cut off when the file is opened again.
 */
export class JsonlLog<T> {
  private queue: Promise<void> = Promise.resolve();
  private closed = false;

  private constructor(
    readonly file: string,
    private readonly handle: FileHandle,
    /** Every row of the file, those of earlier processes included. */
    readonly rows: T[],
    private size: number,
  ) {}

  /** Opens or makes the file and reads the rows it has. @throws TemporaError for a damaged row before the last one. */
  static async open<T>(file: string): Promise<JsonlLog<T>> {
    let handle: FileHandle | undefined;
    try {
      await mkdir(dirname(file), { recursive: true });
      handle = await openForUpdate(file);
      const bytes = await handle.readFile();
      const size = bytes.lastIndexOf(0x0a) + 1;
      const rows = parseRows<T>(bytes.subarray(0, size), file);
      if (size < bytes.length) await handle.truncate(size);
      return new JsonlLog<T>(file, handle, rows, size);
    } catch (error) {
      await handle?.close();
      throw fileError(error, "Cannot open the log", file);
    }
  }

  /** Adds rows in one write; calls queue up. When it fails, the file keeps the rows it had. */
  async append(rows: readonly T[]): Promise<void> {
    if (this.closed) throw new Error(`${this.file} was closed before this append`);
    const bytes = Buffer.from(rows.map(jsonLine).join(""));
    const done = this.queue.then(() => this.write(bytes, rows));
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

  private async write(bytes: Uint8Array, rows: readonly T[]): Promise<void> {
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
    this.size += bytes.length;
    this.rows.push(...rows);
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

function parseRows<T>(bytes: Uint8Array, file: string): T[] {
  const lines = new TextDecoder().decode(bytes).split("\n").slice(0, -1);
  return lines.map((line, i) => {
    try {
      return JSON.parse(line) as T;
    } catch (error) {
      throw new TemporaError("This row of the log is damaged", {
        where: { file, row: i + 1 },
        remedy: "Remove the file to do its work again.",
        cause: error,
      });
    }
  });
}
