import { TensorFile, type TensorPlace } from "../tensor-file.ts";
import { encodings, type WrittenType } from "./encode.ts";

/** A value of the metadata with the type that it is written as. */
export type MetadataValue =
  | { type: "string"; value: string }
  | { type: "u32" | "f32"; value: number }
  | { type: "bool"; value: boolean }
  | { type: "strings"; value: readonly string[] }
  | { type: "i32s" | "f32s"; value: readonly number[] };

/** A tensor that will be written: what must be known before the first byte. */
export interface GgufLayout {
  name: string;
  type: WrittenType;
  /** Outermost first. */
  shape: readonly number[];
}

const alignment = 32;

/** Bytes of a tensor. */
export function layoutBytes({ type, shape }: GgufLayout): number {
  const { elements, bytes } = encodings[type];
  return shape.reduce((product, extent) => product * extent, bytes / elements);
}

/**
 * Creates or empties a GGUF file of version 3 and writes its header; its tensors are written one by one.
 */
export async function createGguf(
  file: string,
  metadata: Readonly<Record<string, MetadataValue>>,
  layout: readonly GgufLayout[],
): Promise<TensorFile> {
  const { header, places, size } = await layOut(metadata, layout);
  return TensorFile.create(file, header, places, size);
}

async function layOut(metadata: Readonly<Record<string, MetadataValue>>, layout: readonly GgufLayout[]) {
  const head = await metadataBytes(metadata, layout.length);
  const infos: Uint8Array[] = [];
  const relative = new Map<string, TensorPlace>();
  let offset = 0;
  for (const tensor of layout) {
    const bytes = layoutBytes(tensor);
    infos.push(tensorInfo(tensor, offset));
    relative.set(tensor.name, { position: offset, bytes });
    offset += padded(bytes);
  }
  const header = Buffer.concat([head, ...infos]);
  const start = padded(header.length);
  const places = new Map(
    [...relative].map(([name, { position, bytes }]) => [name, { position: start + position, bytes }]),
  );
  return { header, places, size: start + offset };
}

function padded(bytes: number): number {
  return Math.ceil(bytes / alignment) * alignment;
}

/** Magic number to the last key-value pair. */
async function metadataBytes(metadata: Readonly<Record<string, MetadataValue>>, tensors: number): Promise<Uint8Array> {
  const { GGUFValueType, serializeGgufMetadata } = await import("@huggingface/gguf");
  const scalar = { string: GGUFValueType.STRING, u32: GGUFValueType.UINT32, f32: GGUFValueType.FLOAT32 } as const;
  const list = { strings: GGUFValueType.STRING, i32s: GGUFValueType.INT32, f32s: GGUFValueType.FLOAT32 } as const;
  const typed = Object.entries(metadata).map(([key, { type, value }]) => {
    if (type === "bool") return [key, { type: GGUFValueType.BOOL, value }];
    if (type === "strings" || type === "i32s" || type === "f32s") {
      return [key, { type: GGUFValueType.ARRAY, subType: list[type], value }];
    }
    return [key, { type: scalar[type], value }];
  });
  const counts = {
    version: { value: 3, type: GGUFValueType.UINT32 },
    tensor_count: { value: BigInt(tensors), type: GGUFValueType.UINT64 },
    kv_count: { value: BigInt(typed.length), type: GGUFValueType.UINT64 },
  };
  type Typed = Parameters<typeof serializeGgufMetadata>[0];
  // Alignment 1: the tensors' descriptions follow at once.
  return serializeGgufMetadata({ ...counts, ...Object.fromEntries(typed) } as unknown as Typed, { alignment: 1 });
}

/** Name, dimensions innermost first, type, offset behind the header. */
function tensorInfo({ name, type, shape }: GgufLayout, offset: number): Uint8Array {
  const text = new TextEncoder().encode(name);
  const bytes = new Uint8Array(8 + text.length + 4 + 8 * shape.length + 4 + 8);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(0, BigInt(text.length), true);
  bytes.set(text, 8);
  let at = 8 + text.length;
  view.setUint32(at, shape.length, true);
  at += 4;
  for (const extent of [...shape].reverse()) {
    view.setBigUint64(at, BigInt(extent), true);
    at += 8;
  }
  view.setUint32(at, encodings[type].type, true);
  view.setBigUint64(at + 4, BigInt(offset), true);
  return bytes;
}
