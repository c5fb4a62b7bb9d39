import { existsSync } from "node:fs";
import { join, resolve } from "node:path";
import { Engine, type MomentsFormat } from "@tempora/engine";
import { TemporaError } from "@tempora/errors";
import { type Checkpoint, isAdapterFolder, locateModel, openAdapter, openCheckpoint } from "@tempora/models";
import { endTokens, Tokenizer } from "@tempora/text";
import { type AdapterFlags, type NamedModel, namedAdapter, useAdapter } from "./adapter.ts";
import type { Context } from "./context.ts";
import { formatBytes } from "./format.ts";
import type { EngineFlags } from "./options.ts";
import type { StageProgress } from "./progress.ts";

/** A checkpoint before its weights are read: enough to check every row of the data against it. */
export interface OpenModel extends NamedModel {
  /** The model, or the base of the adapter that was named. */
  checkpoint: Checkpoint;
  /** Loaded when a row needs it: rows of token ids do without. */
  tokenizer(): Promise<Tokenizer>;
  /** Ids that end a completion. Those of the checkpoint alone where there is no tokenizer: rows of ids do without. */
  endTokens(): Promise<number[]>;
}

/** What every --model says: a path, or a name on the hub. */
export const modelHelp =
  "a checkpoint's path, its name on the hub (org/name[@revision]), or the folder of a LoRA adapter, whose base is found";

/** Opens a checkpoint by its path or its name on the hub, from which it is downloaded where the cache lacks it. */
export async function openModel(name: string, context: Context): Promise<OpenModel> {
  const path = await locate(name, context);
  const adapter = isAdapterFolder(path) ? path : null;
  const checkpoint = await openCheckpoint(adapter === null ? path : await locate(await baseName(adapter), context));
  let loading: Promise<Tokenizer> | null = null;
  const tokenizer = () => {
    loading ??= Tokenizer.from(checkpoint.path, checkpoint.companion);
    return loading;
  };
  return {
    name,
    checkpoint,
    adapter,
    tokenizer,
    endTokens: async () =>
      (await checkpoint.companion("tokenizer.json")) === null
        ? checkpoint.endTokens
        : endTokens(checkpoint.endTokens, await tokenizer()),
  };
}

/** What an adapter lies over: in a run's folder the run's own base, elsewhere what its config names. */
async function baseName(adapter: string): Promise<string> {
  const own = resolve(adapter);
  // A baseline's models lie a folder deeper.
  for (const run of [resolve(own, "../.."), resolve(own, "../../..")]) {
    if (!existsSync(join(run, "run.json"))) continue;
    const inRun = ["base", "M0"].map((name) => join(run, "models", name));
    const found = inRun.find((folder) => existsSync(folder) && !isAdapterFolder(folder));
    if (found !== undefined) return found;
  }
  const { base } = await openAdapter(adapter);
  if (base !== null) return base;
  throw new TemporaError("The adapter does not say what model it lies over", {
    where: { file: join(adapter, "adapter_config.json"), field: "base_model_name_or_path" },
    remedy: "Name that model by --model, and this folder by --adapter.",
  });
}

async function locate(name: string, context: Context): Promise<string> {
  let stage: StageProgress | null = null;
  const folder = await locateModel(name, {
    signal: context.signal,
    note: (text) => context.progress.note(text),
    onProgress: (done, total) => {
      stage ??= context.progress.stage(`download ${name}`, total, "bytes");
      stage.update(done);
    },
  });
  (stage as StageProgress | null)?.finish();
  return folder;
}

/** Reads the weights, and the adapter that the flags name. Dispose of the engine. */
export async function loadEngine(
  model: OpenModel,
  flags: EngineFlags & AdapterFlags & { moments?: MomentsFormat },
  context: Context,
): Promise<Engine> {
  const { name, checkpoint } = model;
  const adapter = await namedAdapter(model, flags);
  const stage = context.progress.stage(`load ${name}`, 1, "model");
  const engine = await Engine.load(checkpoint, {
    device: flags.device,
    threads: flags.threads,
    dtype: flags.dtype,
    quantize: flags.quantize,
    moments: flags.moments,
    signal: context.signal,
    onProgress: (done, total) => stage.update(done / total),
  });
  try {
    if (adapter !== null) await useAdapter(engine, adapter);
  } catch (error) {
    engine.dispose();
    throw error;
  }
  const weights = formatBytes(engine.memory().weights);
  stage.finish(`${weights} of ${engine.dtype} weights on ${engine.deviceName}`);
  return engine;
}
