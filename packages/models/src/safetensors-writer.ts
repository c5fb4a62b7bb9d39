import { mkdir, rename, rm } from "node:fs/promises";
import { dirname } from "node:path";
import type { DType } from "@tempora/engine/model";
import { fileError, systemErrorCode, TemporaError } from "@tempora/errors";
import { TensorFile, type TensorPlace } from "./tensor-file.ts";

const elementBytes = { f32: 4, bf16: 2, u8: 1 } as const;

/** A tensor that will be written: what must be known before the first byte. */
export interface TensorLayout {
  name: string;
  /** u8: parts of quantised tensors. */
  dtype: DType | "u8";
  shape: readonly number[];
}

/** A tensor in memory. */
export interface NamedTensor extends TensorLayout {
  /** Little-endian, row-major. */
  bytes: Uint8Array;
}

export function tensorBytes(tensor: TensorLayout): number {
  return tensor.shape.reduce((product, extent) => product * extent, elementBytes[tensor.dtype]);
}

/** Writes a safetensors file whose layout is known while its tensors come one by one, in any order. */
export class SafetensorsWriter {
  private constructor(
    private readonly name: string,
    private readonly file: TensorFile,
    private readonly layout: ReadonlyMap<string, TensorLayout>,
  ) {}

  /** Creates or empties `file` and writes its header, with the metadata {"format": "pt"} that transformers asks for. */
  static async create(file: string, layout: readonly TensorLayout[]): Promise<SafetensorsWriter> {
    const { header, places, size } = layOut(layout);
    const announced = new Map(layout.map((tensor) => [tensor.name, tensor]));
    return new SafetensorsWriter(file, await TensorFile.create(file, header, places, size), announced);
  }

  has(name: string): boolean {
    return this.file.has(name);
  }

  async write(tensor: NamedTensor): Promise<void> {
    const wanted = this.layout.get(tensor.name);
    if (wanted !== undefined && describe(wanted) !== describe(tensor)) {
      throw new TemporaError(`This tensor must be ${describe(wanted)}, not ${describe(tensor)}`, {
        where: { file: this.name, field: tensor.name },
        remedy: "Write the tensors of the model that the config describes.",
      });
    }
    await this.file.write(tensor.name, tensor.bytes);
  }

  /** Flushes to the disk. @throws TemporaError when a tensor of the layout was never written. */
  close(): Promise<void> {
    return this.file.close();
  }

  /** Gives the file up as it is. */
  abandon(): Promise<void> {
    return this.file.abandon();
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
function layOut(layout: readonly TensorLayout[]) {
  const sorted = [...layout].sort((a, b) => {
    if (a.dtype !== b.dtype) return elementBytes[b.dtype] - elementBytes[a.dtype];
    return a.name < b.name ? -1 : 1;
  });
  const json: Record<string, unknown> = { __metadata__: { format: "pt" } };
  const relative = new Map<string, TensorPlace>();
  let begin = 0;
  for (const tensor of sorted) {
    const bytes = tensorBytes(tensor);
    const end = begin + bytes;
    json[tensor.name] = { dtype: tensor.dtype.toUpperCase(), shape: tensor.shape, data_offsets: [begin, end] };
    relative.set(tensor.name, { position: begin, bytes });
    begin = end;
  }
  const text = new TextEncoder().encode(JSON.stringify(json));
  const length = Math.ceil(text.length / 8) * 8;
  const header = new Uint8Array(8 + length).fill(0x20);
  new DataView(header.buffer).setBigUint64(0, BigInt(length), true);
  header.set(text, 8);
  const places = new Map(
    [...relative].map(([name, { position, bytes }]) => [name, { position: header.length + position, bytes }]),
  );
  return { header, places, size: header.length + begin };
}
