import { existsSync } from "node:fs";
import { join } from "node:path";
import { Engine } from "@tempora/engine";
import { type Checkpoint, openCheckpoint } from "@tempora/models";
import { endTokens, Tokenizer } from "@tempora/text";
import type { Context } from "./context.ts";
import { formatBytes } from "./format.ts";
import type { EngineFlags } from "./options.ts";

/** A checkpoint before its weights are read: enough to check every row of the data against it. */
export interface OpenModel {
  checkpoint: Checkpoint;
  /** Loaded when a row needs it: rows of token ids do without. */
  tokenizer(): Promise<Tokenizer>;
  /** Ids that end a completion. Those of the checkpoint alone where there is no tokenizer: rows of ids do without. */
  endTokens(): Promise<number[]>;
}

export async function openModel(folder: string): Promise<OpenModel> {
  const checkpoint = await openCheckpoint(folder);
  let loading: Promise<Tokenizer> | null = null;
  const tokenizer = () => {
    loading ??= Tokenizer.load(folder);
    return loading;
  };
  return {
    checkpoint,
    tokenizer,
    endTokens: async () =>
      existsSync(join(folder, "tokenizer.json"))
        ? endTokens(checkpoint.endTokens, await tokenizer())
        : checkpoint.endTokens,
  };
}

/** Reads the weights. Dispose of the engine. */
export async function loadEngine({ checkpoint }: OpenModel, flags: EngineFlags, context: Context): Promise<Engine> {
  const stage = context.progress.stage(`load ${checkpoint.folder}`, 1, "model");
  const engine = await Engine.load(checkpoint, {
    device: flags.device,
    threads: flags.threads,
    dtype: flags.dtype,
    signal: context.signal,
    onProgress: (done, total) => stage.update(done / total),
  });
  const weights = formatBytes(engine.memory().weights);
  stage.finish(`${weights} of ${engine.dtype} weights on ${engine.deviceName}`);
  return engine;
}
