import { existsSync } from "node:fs";
import { type AdapterConfig, type DType, Engine } from "@tempora/engine";
import { TemporaError } from "@tempora/errors";
import { type Checkpoint, openAdapter, openCheckpoint } from "@tempora/models";
import { endTokens, Tokenizer } from "@tempora/text";
import type { Settings } from "../settings/settings.ts";
import { requireFiles } from "./file-hashes.ts";
import { baseOf, type ModelRef, type WholeModel } from "./model-ref.ts";

/** A model in memory, ready to compute. */
export interface LoadedModel {
  engine: Engine;
  tokenizer: Tokenizer;
  checkpoint: Checkpoint;
  /** Ids that end a completion. */
  endTokens: number[];
}

interface Slot {
  engine: Engine;
  /** Hash of the weights that the engine holds, or null while they are in training. */
  hash: string | null;
}

/** A LoRA adapter that is to be trained, over a frozen model. */
export interface AdapterTraining {
  config: AdapterConfig;
  /** Of its first values, where it is new, and of its dropout. */
  seed: number;
}

/** What the engine calls the adapter that is trained; others have their models' hashes. */
const inTraining = "in training";
/** Held beside each other at most: each is some megabytes. */
export const mostAdapters = 8;

/**
 * Keeps one engine for each model shape and swaps weight sets in: past, current, future and judge are names of
 * checkpoints, not further copies in memory. Models that are adapters over one base are held beside each other, and the
 * base is read once. Disposing frees every engine.
 */
export class ModelHost implements Disposable {
  #slots = new Map<string, Slot>();
  #opened = new Map<string, { checkpoint: Checkpoint; tokenizer: Tokenizer }>();

  /** Hashes of models whose files were found to be what was saved. */
  #verified = new Set<string>();

  constructor(
    readonly options: Settings["engine"],
    readonly signal: AbortSignal | undefined,
  ) {}

  /** The model's engine, whose calls go through the model. Valid until the next call. */
  async use(model: ModelRef): Promise<LoadedModel> {
    return (await this.useTogether([model])).loaded;
  }

  /**
   * As `use` of the first of some models of one base; the calls may name the others by their adapters (null: the base), which are
   * given in the models' order.
   */
  async useTogether(models: readonly ModelRef[]): Promise<{ loaded: LoadedModel; adapters: (string | null)[] }> {
    const model = models[0] as ModelRef;
    for (const { name, folder } of models) requireFolder(name, folder);
    const base = baseOf(model);
    const { checkpoint, tokenizer } = await this.open(model);
    const key = this.#key(checkpoint);
    let slot = this.#slots.get(key);
    if (slot?.hash !== base.hash) await this.#verify(base);
    if (slot === undefined) {
      const engine = await Engine.load(checkpoint, {
        device: this.options.device,
        threads: this.options.threads,
        dtype: this.dtypeOf(checkpoint),
        quantize: this.options.quantize ?? undefined,
        moments: this.options.moments,
        ...(this.signal === undefined ? {} : { signal: this.signal }),
      });
      slot = { engine, hash: base.hash };
      this.#slots.set(key, slot);
    } else if (slot.hash !== base.hash) {
      slot.hash = null;
      await slot.engine.setParameters(checkpoint);
      slot.hash = base.hash;
    }
    const { engine } = slot;
    await this.#holdAdapters(engine, models);
    const adapters = models.map(({ hash, base: under }) => (under === null ? null : hash));
    const first = adapters[0] ?? null;
    if (engine.adapters.active !== first) await engine.adapters.activate(first);
    const loaded = { engine, tokenizer, checkpoint, endTokens: endTokens(checkpoint.endTokens, tokenizer) };
    return { loaded, adapters };
  }

  /**
   * As `use`, for training: afterwards the engine's weights belong to no checkpoint, until `trained` says to which. With an
   * adapter the weights stay, and the model's adapter, or a new one, is trained as a copy. Engines of other shapes, such
   * as the judge's, are idle meanwhile: their memory is given to gradients and moments.
   */
  async useForTraining(model: ModelRef, adapter: AdapterTraining | null = null): Promise<LoadedModel> {
    const { checkpoint } = await this.open(model);
    const own = this.#key(checkpoint);
    for (const [key, { engine }] of this.#slots) {
      if (key === own) continue;
      engine.dispose();
      this.#slots.delete(key);
    }
    const loaded = await this.use(model);
    const slot = this.#slots.get(own);
    if (adapter !== null) await beginAdapter(loaded.engine, model, adapter);
    else if (slot !== undefined) slot.hash = null;
    return loaded;
  }

  /** The training that began with `start` has ended, and what the engine holds was saved as the checkpoint of this hash. */
  async trained(start: ModelRef, hash: string): Promise<void> {
    const slot = this.#slots.get(this.#key((await this.open(start)).checkpoint));
    if (slot === undefined) return;
    if (slot.engine.adapters.names.includes(inTraining)) await slot.engine.adapters.remove(inTraining);
    else if (slot.hash === null) slot.hash = hash;
  }

  async open(model: ModelRef): Promise<{ checkpoint: Checkpoint; tokenizer: Tokenizer }> {
    const { folder, hash } = existsSync(baseOf(model).folder) ? baseOf(model) : (model.kin ?? baseOf(model));
    let opened = this.#opened.get(hash);
    if (opened === undefined) {
      opened = { checkpoint: await openCheckpoint(folder), tokenizer: await Tokenizer.load(folder) };
      this.#opened.set(hash, opened);
    }
    return opened;
  }

  /** Element type in which this run computes and saves the model. */
  dtypeOf(checkpoint: { dtype: DType }): DType {
    return this.options.dtype ?? checkpoint.dtype;
  }

  /** Loads the models' adapters that the engine lacks. */
  async #holdAdapters({ adapters }: Engine, models: readonly ModelRef[]): Promise<void> {
    const wanted = models.filter(({ base }) => base !== null);
    const missing = wanted.filter(({ hash }) => !adapters.names.includes(hash));
    if (adapters.names.length + missing.length > mostAdapters) {
      const kept = new Set(wanted.map(({ hash }) => hash));
      for (const name of adapters.names) if (!kept.has(name)) await adapters.remove(name);
    }
    for (const model of missing) {
      await this.#verify(model);
      await adapters.load(model.hash, await openAdapter(model.folder));
    }
  }

  /** @throws TemporaError when a model of the store is not the one that was saved there */
  async #verify({ folder, hash, files }: WholeModel): Promise<void> {
    if (files === undefined || this.#verified.has(hash)) return;
    await requireFiles(folder, files);
    this.#verified.add(hash);
  }

  #key(checkpoint: Checkpoint): string {
    return JSON.stringify([checkpoint.config, this.dtypeOf(checkpoint)]);
  }

  [Symbol.dispose](): void {
    for (const { engine } of this.#slots.values()) engine.dispose();
    this.#slots.clear();
  }
}

function requireFolder(name: string, folder: string): void {
  if (existsSync(folder)) return;
  throw new TemporaError(`The files of ${name} are no longer in the store`, {
    where: { file: folder },
    remedy: "They were cleaned away: delete the folder of this stage, and it is trained again.",
  });
}

async function beginAdapter({ adapters }: Engine, model: ModelRef, { config, seed }: AdapterTraining): Promise<void> {
  // What an earlier training left that failed.
  if (adapters.names.includes(inTraining)) await adapters.remove(inTraining);
  if (model.base === null) await adapters.add(inTraining, config, { seed });
  else await adapters.load(inTraining, await openAdapter(model.folder), { seed });
  await adapters.activate(inTraining);
}
