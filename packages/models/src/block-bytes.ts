import type { TensorSource } from "@tempora/engine/model";

/** Bytes of the tensors that are held in quantised blocks, by name. */
export function blockBytesOf(tensors: readonly TensorSource[]): ReadonlyMap<string, number> {
  return new Map(tensors.flatMap(({ name, blocks }) => (blocks ? [[name, blocks.byteLength] as const] : [])));
}
