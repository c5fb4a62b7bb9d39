import { createHash, type Hash } from "node:crypto";
import { existsSync } from "node:fs";
import { readdir, stat } from "node:fs/promises";
import { basename, join } from "node:path";
import { type ModelSource, parameterShapes } from "@tempora/engine/model";
import { canonical, type FileReader, fileError, type Json, systemErrorCode, TemporaError } from "@tempora/errors";
import { firstPart } from "./gguf/file.ts";
import { openGguf } from "./gguf/open.ts";
import { openFolder } from "./hf-folder.ts";
import { replacedFolder, tokenizerFiles } from "./layout.ts";
import { isAdapterFolder } from "./peft/folder.ts";
import { hasSafetensors } from "./weights.ts";

/** A checkpoint on disk whose config, tensor names, shapes and element types were checked. Weights are read when asked for. */
export interface Checkpoint extends ModelSource {
  /** The folder or GGUF file, as it was named. */
  path: string;
  format: "huggingface" | "gguf";
  /** Every file that belongs to it: config, weights, tokenizer, generation config. */
  files: readonly string[];
  /** Bytes of the parameters that its files hold in quantised blocks, by name. */
  blockBytes?: ReadonlyMap<string, number> | undefined;
  /** config.json as it stands, or as it follows from a GGUF file. */
  raw: Record<string, unknown>;
  /** generation_config.json likewise. */
  generation: Record<string, unknown> | null;
  /** Ids that end a completion, as generation_config.json and config.json state them. */
  endTokens: number[];
  /** Files that go with the weights (tokenizer, chat template, generation config), by their Hugging Face names. */
  companion: FileReader;
}

/**
 * Opens a model as it lies on a disk: a Hugging Face folder (weights in F32, F16, BF16 or bitsandbytes' NF4, also mixed), a GGUF file, or a folder
 * with one GGUF model.
 * @throws TemporaError for a missing, unexpected, misshapen or wrongly typed tensor, by name and file.
 */
export async function openCheckpoint(path: string): Promise<Checkpoint> {
  if (await isFolder(path)) {
    if (isAdapterFolder(path)) {
      throw new TemporaError("This is a LoRA adapter, not a whole model", {
        where: { file: path },
        remedy: "Name its base as the model, and this folder as the adapter (--adapter).",
      });
    }
    const gguf = hasSafetensors(path) ? null : await ggufIn(path);
    return gguf === null ? openFolder(path) : openGguf(gguf, path);
  }
  if (path.endsWith(".gguf")) return openGguf(path, path);
  throw new TemporaError("A checkpoint is a folder or a .gguf file, this is another file", {
    where: { file: path },
    remedy: "Name the folder that holds config.json, or a GGUF file.",
  });
}

async function isFolder(path: string): Promise<boolean> {
  try {
    return (await stat(path)).isDirectory();
  } catch (error) {
    const replaced = replacedFolder(path);
    if (systemErrorCode(error) === "ENOENT" && existsSync(replaced)) {
      throw new TemporaError("The checkpoint is missing: saving over it was cut off at the last moment", {
        where: { file: path },
        remedy: `Its previous state lies in ${replaced}: rename that folder back.`,
        cause: error,
      });
    }
    throw fileError(error, "Cannot open the checkpoint", path);
  }
}

/** The one GGUF model of a folder: a file, or the first part of a split one; null for none. */
async function ggufIn(folder: string): Promise<string | null> {
  const names = (await readdir(folder)).filter((name) => name.endsWith(".gguf")).map(firstPart);
  const [first, second] = new Set(names.sort());
  if (first === undefined) return null;
  if (second === undefined) return join(folder, first);
  throw new TemporaError(`The folder holds several GGUF models: ${[...new Set(names)].join(", ")}`, {
    where: { file: folder },
    remedy: `Name one of them, as in ${join(basename(folder), first)}.`,
  });
}

export interface HashOptions {
  signal?: AbortSignal | undefined;
  /** Told after each tensor. */
  onProgress?(done: number, total: number): void;
}

/**
 * SHA-256 (hex) of the content that decides a checkpoint's outputs: its config as the engine reads it, its end tokens, the
 * bytes of every parameter and the tokenizer files. How the weights are split into files does not matter.
 */
export async function checkpointHash(path: string, options: HashOptions = {}): Promise<string> {
  const checkpoint = await openCheckpoint(path);
  const total = parameterShapes(checkpoint.config).length;
  let done = 0;
  const hash = createHash("sha256");
  const { config, dtype, endTokens } = checkpoint;
  addField(hash, "config", canonical([config as unknown as Json, dtype, endTokens]));
  for await (const tensor of checkpoint.tensors()) {
    options.signal?.throwIfAborted();
    addField(hash, `${tensor.name} ${tensor.dtype} [${tensor.shape.join(", ")}]`, await tensor.read());
    options.onProgress?.(++done, total);
  }
  for (const name of tokenizerFiles) {
    const content = await checkpoint.companion(name);
    if (content !== null) addField(hash, name, content);
  }
  return hash.digest("hex");
}

/** Length before content, so that no two sequences of fields give the same bytes. */
function addField(hash: Hash, label: string, content: string | Uint8Array): void {
  const bytes = typeof content === "string" ? Buffer.from(content) : content;
  hash.update(`${Buffer.byteLength(label)}:${label}${bytes.byteLength}:`);
  hash.update(bytes);
}
