import { hashJson } from "@tempora/errors";
import { adapterHash, checkpointHash } from "@tempora/models";
import type { FileHashes } from "./file-hashes.ts";

/** A checkpoint, and its checkpointHash. */
export interface WholeModel {
  folder: string;
  hash: string;
  /** Of a model of the store: what is checked before it is read. */
  files?: FileHashes | undefined;
}

/** A model of the run: its name ("M0", "F1") and what holds it. */
export interface ModelRef {
  name: string;
  /** A checkpoint, or the adapter over `base`. */
  folder: string;
  /** Of all that decides its outputs: what stages are keyed by. */
  hash: string;
  /** Of a model of the store: what is checked before it is read. */
  files?: FileHashes | undefined;
  /** What a LoRA adapter lies over; null: the model is whole. */
  base: WholeModel | null;
  /** A model with the same config and tokenizer, which answers for a temporary model whose files were cleaned away. */
  kin?: WholeModel;
}

export async function wholeModel(name: string, folder: string): Promise<ModelRef> {
  return { name, folder, hash: await checkpointHash(folder), base: null };
}

export async function adaptedModel(name: string, folder: string, base: WholeModel): Promise<ModelRef> {
  return { name, folder, hash: hashJson({ base: base.hash, adapter: await adapterHash(folder) }), base };
}

/** The whole model under a model: itself, or its adapter's base. */
export function baseOf({ folder, hash, files, base }: ModelRef): WholeModel {
  return base ?? { folder, hash, files };
}
