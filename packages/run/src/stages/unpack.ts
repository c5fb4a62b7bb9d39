import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { join } from "node:path";
import { parameterShapes } from "@tempora/engine";
import { openCheckpoint, saveCopy } from "@tempora/models";
import { type FileHashes, fileHashes } from "../models/file-hashes.ts";
import { type RunContext, runStage } from "./context.ts";

/**
 * The Hugging Face folder of a model that a run is given: a GGUF file is decoded once and kept in the store, any other
 * checkpoint is used where it lies.
 */
export async function unpackedFolder(
  context: RunContext,
  path: string,
): Promise<{ folder: string; files?: FileHashes | undefined }> {
  const checkpoint = await openCheckpoint(path);
  if (checkpoint.format === "huggingface") return { folder: path };
  const dtype = context.host.dtypeOf(checkpoint);
  const { folder, result } = await runStage<{ files: FileHashes }>(context, {
    kind: "unpacked-model",
    label: `unpacking ${path}`,
    total: parameterShapes(checkpoint.config).length,
    unit: "tensors",
    position: { strategy: null, iteration: 0 },
    inputs: { files: await hashFiles(checkpoint.files, context.signal), dtype },
    compute: async (stage, progress) => {
      await saveCopy(checkpoint, join(stage, "model"), {
        dtype,
        signal: context.signal,
        onProgress: (done) => progress(done),
      });
      return { files: await fileHashes(join(stage, "model")) };
    },
  });
  return { folder: join(folder, "model"), files: result.files };
}

async function hashFiles(files: readonly string[], signal: AbortSignal | undefined): Promise<string> {
  const hash = createHash("sha256");
  for (const file of files) {
    for await (const chunk of createReadStream(file, { highWaterMark: 1 << 22 })) {
      signal?.throwIfAborted();
      hash.update(chunk as Uint8Array);
    }
  }
  return hash.digest("hex");
}
