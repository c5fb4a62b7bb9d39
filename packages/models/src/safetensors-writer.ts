import { type FileHandle, mkdir, open, rename, rm } from "node:fs/promises";
import { dirname } from "node:path";
import type { DType } from "@tempora/engine/model";
import { fileError, systemErrorCode, TemporaError } from "@tempora/errors";

/** A tensor that will be written: what must be known before the first byte. */
export interface TensorLayout {
  name: string;
  dtype: DType;
  shape: readonly number[];
}

/** A tensor in memory. */
export interface NamedTensor extends TensorLayout {
  /** Little-endian, row-major. */
  bytes: Uint8Array;
}

export function tensorBytes(tensor: TensorLayout): number {
  return tensor.shape.reduce((product, extent) => product * extent, tensor.dtype === "f32" ? 4 : 2);
}

/**
 * Writes a safetensors file whose layout is known while its tensors come one by one, in any order: each goes to its own
 * place, so that no more than one tensor need be in memory. The file is complete when close() returns.
 */
export class SafetensorsWriter {
  private readonly pending: Map<string, TensorLayout & { position: number }>;

  private constructor(
    private readonly file: string,
    private readonly handle: FileHandle,
    placed: readonly (TensorLayout & { position: number })[],
  ) {
    this.pending = new Map(placed.map((tensor) => [tensor.name, tensor]));
  }

  /** Creates or empties `file` and writes its header, with the metadata {"format": "pt"} that transformers asks for. */
  static async create(file: string, layout: readonly TensorLayout[]): Promise<SafetensorsWriter> {
    const { header, placed } = layOut(layout);
    let handle: FileHandle | undefined;
    try {
      handle = await open(file, "w");
      await writeAll(handle, header, 0);
    } catch (error) {
      await handle?.close();
      throw fileError(error, "Cannot write the weights", file);
    }
    return new SafetensorsWriter(file, handle, placed);
  }

  has(name: string): boolean {
    return this.pending.has(name);
  }

  async write(tensor: NamedTensor): Promise<void> {
    const { file } = this;
    const place = this.pending.get(tensor.name);
    const where = { file, field: tensor.name };
    if (place === undefined) {
      throw new TemporaError("This tensor was not announced, or was written before", {
        where,
        remedy: "Write every tensor of the layout once.",
      });
    }
    const [wanted, given] = [describe(place), describe(tensor)];
    if (wanted !== given || tensor.bytes.byteLength !== tensorBytes(place)) {
      throw new TemporaError(`This tensor must be ${wanted}, not ${given} of ${tensor.bytes.byteLength} bytes`, {
        where,
        remedy: "Write the tensors of the model that the config describes.",
      });
    }
    try {
      await writeAll(this.handle, tensor.bytes, place.position);
    } catch (error) {
      throw fileError(error, "Cannot write the weights", file);
    }
    this.pending.delete(tensor.name);
  }

  /** Flushes to the disk. @throws TemporaError when a tensor of the layout was never written. */
  async close(): Promise<void> {
    const [missing] = this.pending.keys();
    try {
      if (missing === undefined) await this.handle.sync();
    } catch (error) {
      throw fileError(error, "Cannot write the weights", this.file);
    } finally {
      await this.handle.close();
    }
    if (missing !== undefined) {
      throw new TemporaError("This tensor was never given", {
        where: { file: this.file, field: missing },
        remedy: "Write every tensor of the layout once.",
      });
    }
  }

  /** Gives the file up as it is. */
  async abandon(): Promise<void> {
    await this.handle.close().catch(() => undefined);
  }
}

/** Writes tensors in memory to one file, whole or not at all. */
export async function writeSafetensors(file: string, tensors: readonly NamedTensor[]): Promise<void> {
  const partial = `${file}.partial`;
  try {
    await mkdir(dirname(file), { recursive: true });
  } catch (error) {
    throw fileError(error, "Cannot write the weights", file);
  }
  const writer = await SafetensorsWriter.create(partial, tensors);
  try {
    for (const tensor of tensors) await writer.write(tensor);
    await writer.close();
    await rename(partial, file);
  } catch (error) {
    await writer.abandon();
    await rm(partial, { force: true });
    throw systemErrorCode(error) === undefined ? error : fileError(error, "Cannot write the weights", file);
  }
}

function describe(tensor: TensorLayout): string {
  return `${tensor.dtype} [${tensor.shape.join(", ")}]`;
}

/** Wide elements first, then by name, as the reference implementation lays them out; the data starts at a multiple of 8. */
function layOut(layout: readonly TensorLayout[]): {
  header: Uint8Array;
  placed: (TensorLayout & { position: number })[];
} {
  const sorted = [...layout].sort((a, b) => {
    if (a.dtype !== b.dtype) return a.dtype === "f32" ? -1 : 1;
    return a.name < b.name ? -1 : 1;
  });
  const json: Record<string, unknown> = { __metadata__: { format: "pt" } };
  let begin = 0;
  const ranges = sorted.map((tensor) => {
    const end = begin + tensorBytes(tensor);
    json[tensor.name] = { dtype: tensor.dtype.toUpperCase(), shape: tensor.shape, data_offsets: [begin, end] };
    const range = { tensor, begin };
    begin = end;
    return range;
  });
  const text = new TextEncoder().encode(JSON.stringify(json));
  const length = Math.ceil(text.length / 8) * 8;
  const header = new Uint8Array(8 + length).fill(0x20);
  new DataView(header.buffer).setBigUint64(0, BigInt(length), true);
  header.set(text, 8);
  return { header, placed: ranges.map(({ tensor, begin: at }) => ({ ...tensor, position: header.length + at })) };
}

export async function writeAll(handle: FileHandle, bytes: Uint8Array, position: number): Promise<void> {
  let done = 0;
  while (done < bytes.length) {
    // Linux moves at most 2 GiB in one call.
    const wanted = Math.min(bytes.length - done, 1 << 30);
    const { bytesWritten } = await handle.write(bytes, done, wanted, position + done);
    done += bytesWritten;
  }
}
