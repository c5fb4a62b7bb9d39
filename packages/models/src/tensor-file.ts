import { type FileHandle, open } from "node:fs/promises";
import { fileError, TemporaError } from "@tempora/errors";

/** Where a tensor of a file goes. */
export interface TensorPlace {
  /** Bytes from the beginning of the file. */
  position: number;
  bytes: number;
}

const unwritable = "Cannot write the weights";
const remedy = "Write every tensor of the layout once.";

/**
 * A file of tensors whose places are known while the tensors come one by one, in any order, so that no more than one need be
 * in memory. It is complete when close() returns.
 */
export class TensorFile {
  readonly #pending: Map<string, TensorPlace>;

  private constructor(
    private readonly file: string,
    private readonly handle: FileHandle,
    places: ReadonlyMap<string, TensorPlace>,
  ) {
    this.#pending = new Map(places);
  }

  /**
   * Creates or empties `file` and writes its header.
   * @param size in bytes, padding behind the last tensor included
   */
  static async create(
    file: string,
    header: Uint8Array,
    places: ReadonlyMap<string, TensorPlace>,
    size: number,
  ): Promise<TensorFile> {
    let handle: FileHandle | undefined;
    try {
      handle = await open(file, "w");
      await handle.truncate(size);
      await writeAll(handle, header, 0);
    } catch (error) {
      await handle?.close();
      throw fileError(error, unwritable, file);
    }
    return new TensorFile(file, handle, places);
  }

  /** Whether the tensor was announced and is still to be written. */
  has(name: string): boolean {
    return this.#pending.has(name);
  }

  async write(name: string, bytes: Uint8Array): Promise<void> {
    const place = this.#pending.get(name);
    if (place === undefined || place.bytes !== bytes.length) {
      const what =
        place === undefined
          ? "was not announced, or was written before"
          : `must have ${place.bytes} bytes, not ${bytes.length}`;
      throw new TemporaError(`This tensor ${what}`, { where: { file: this.file, field: name }, remedy });
    }
    try {
      await writeAll(this.handle, bytes, place.position);
    } catch (error) {
      throw fileError(error, unwritable, this.file);
    }
    this.#pending.delete(name);
  }

  /** Flushes to the disk. @throws TemporaError when a tensor of the layout was never written. */
  async close(): Promise<void> {
    const [missing] = this.#pending.keys();
    try {
      if (missing === undefined) await this.handle.sync();
    } catch (error) {
      throw fileError(error, unwritable, this.file);
    } finally {
      await this.handle.close();
    }
    if (missing !== undefined) {
      throw new TemporaError("This tensor was never given", { where: { file: this.file, field: missing }, remedy });
    }
  }

  /** Gives the file up as it is. */
  async abandon(): Promise<void> {
    await this.handle.close().catch(() => undefined);
  }
}

async function writeAll(handle: FileHandle, bytes: Uint8Array, position: number): Promise<void> {
  let done = 0;
  while (done < bytes.length) {
    // Linux moves at most 2 GiB in one call.
    const wanted = Math.min(bytes.length - done, 1 << 30);
    const { bytesWritten } = await handle.write(bytes, done, wanted, position + done);
    done += bytesWritten;
  }
}
