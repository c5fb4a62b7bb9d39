import { Engine } from "@tempora/engine";
import { type Checkpoint, openCheckpoint } from "@tempora/models";
import { Tokenizer } from "@tempora/text";
import type { Context } from "./context.ts";
import type { EngineFlags } from "./options.ts";

/** A checkpoint with its engine. The tokenizer is loaded when a row needs it: rows of token ids do without. */
export interface LoadedModel extends Disposable {
  checkpoint: Checkpoint;
  engine: Engine;
  tokenizer(): Promise<Tokenizer>;
}

export async function loadModel(folder: string, flags: EngineFlags, context: Context): Promise<LoadedModel> {
  const checkpoint = await openCheckpoint(folder);
  const stage = context.progress.stage(`load ${folder}`, 0, "tensors");
  const engine = await Engine.load(checkpoint, {
    device: flags.device,
    threads: flags.threads,
    ...(flags.dtype === undefined ? {} : { dtype: flags.dtype }),
    signal: context.signal,
  });
  const memory = engine.memory();
  stage.finish(`${engine.dtype} on ${engine.deviceName}, ${(memory.weights / 2 ** 20).toFixed(0)} MiB of weights`);
  return { checkpoint, engine, tokenizer: tokenizerOf(folder), [Symbol.dispose]: () => engine.dispose() };
}

/** Loads the folder's tokenizer on the first call. */
export function tokenizerOf(folder: string): () => Promise<Tokenizer> {
  let loading: Promise<Tokenizer> | null = null;
  return () => {
    loading ??= Tokenizer.load(folder);
    return loading;
  };
}

/** Ids that end a completion: the checkpoint's, else the tokenizer's EOS. */
export async function endTokensOf(model: LoadedModel): Promise<number[]> {
  if (model.checkpoint.endTokens.length > 0) return model.checkpoint.endTokens;
  const { eosId } = await model.tokenizer();
  return eosId === null ? [] : [eosId];
}
