import { type DType, Engine } from "@tempora/engine";
import { type Checkpoint, openCheckpoint } from "@tempora/models";
import { endTokens, Tokenizer } from "@tempora/text";
import type { Settings } from "../settings/settings.ts";
import type { ModelRef } from "./model-ref.ts";

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

/**
 * Keeps one engine for each model shape and swaps weight sets in: past, current, future and judge are names of
 * checkpoints, not further copies in memory. Disposing frees every engine.
 */
export class ModelHost implements Disposable {
  #slots = new Map<string, Slot>();
  #opened = new Map<string, { checkpoint: Checkpoint; tokenizer: Tokenizer }>();

  constructor(
    readonly options: Settings["engine"],
    readonly signal: AbortSignal | undefined,
  ) {}

  /** The model's engine with its weights. Valid until the next call. */
  async use(model: ModelRef): Promise<LoadedModel> {
    const { checkpoint, tokenizer } = await this.open(model);
    const key = this.#key(checkpoint);
    let slot = this.#slots.get(key);
    if (slot === undefined) {
      const engine = await Engine.load(checkpoint, {
        device: this.options.device,
        threads: this.options.threads,
        dtype: this.dtypeOf(checkpoint),
        ...(this.signal === undefined ? {} : { signal: this.signal }),
      });
      slot = { engine, hash: model.hash };
      this.#slots.set(key, slot);
    } else if (slot.hash !== model.hash) {
      slot.hash = null;
      await slot.engine.setParameters(checkpoint);
      slot.hash = model.hash;
    }
    return { engine: slot.engine, tokenizer, checkpoint, endTokens: endTokens(checkpoint.endTokens, tokenizer) };
  }

  /**
   * As `use`, for training: afterwards the engine's weights belong to no checkpoint, until `trained` says to which. Engines of
   * other shapes, such as the judge's, are idle meanwhile: their memory is given to gradients and moments.
   */
  async useForTraining(model: ModelRef): Promise<LoadedModel> {
    const { checkpoint } = await this.open(model);
    const own = this.#key(checkpoint);
    for (const [key, { engine }] of this.#slots) {
      if (key === own) continue;
      engine.dispose();
      this.#slots.delete(key);
    }
    const loaded = await this.use(model);
    const slot = this.#slots.get(own);
    if (slot !== undefined) slot.hash = null;
    return loaded;
  }

  /** The training that began with `start` has ended, and what the engine holds was saved as the checkpoint of this hash. */
  async trained(start: ModelRef, hash: string): Promise<void> {
    const slot = this.#slots.get(this.#key((await this.open(start)).checkpoint));
    if (slot !== undefined && slot.hash === null) slot.hash = hash;
  }

  async open(model: ModelRef): Promise<{ checkpoint: Checkpoint; tokenizer: Tokenizer }> {
    let opened = this.#opened.get(model.hash);
    if (opened === undefined) {
      opened = { checkpoint: await openCheckpoint(model.folder), tokenizer: await Tokenizer.load(model.folder) };
      this.#opened.set(model.hash, opened);
    }
    return opened;
  }

  /** Element type in which this run computes and saves the model. */
  dtypeOf(checkpoint: { dtype: DType }): DType {
    return this.options.dtype ?? checkpoint.dtype;
  }

  #key(checkpoint: Checkpoint): string {
    return JSON.stringify([checkpoint.config, this.dtypeOf(checkpoint)]);
  }

  [Symbol.dispose](): void {
    for (const { engine } of this.#slots.values()) engine.dispose();
    this.#slots.clear();
  }
}
