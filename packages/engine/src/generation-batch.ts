import { TemporaError } from "@tempora/errors";
import type { NativeBatch, NativeBatchOptions, NativeBatchRequest, NativeBatchStep } from "./addon.ts";
import { checkNumber } from "./check.ts";
import { cachePage, type GenerationOptions, generationRequest, pages, promptForest } from "./generate.ts";
import type { ModelConfig } from "./model.ts";
import { cancellable } from "./native.ts";

/** A prompt that joins a running batch, with sampling settings of its own. Values left out are those of `generate`. */
export interface BatchRequest {
  ids: ArrayLike<number>;
  /** Keys the random numbers with `seed`, the sample's number and the position. Default 0. */
  key?: number | undefined;
  /** The adapter that it goes through: a name, null for the base; default: what is active when it is added. */
  adapter?: string | null | undefined;
  /** Completions of the prompt; default 1. */
  samples?: number | undefined;
  temperature?: GenerationOptions["temperature"];
  topK?: GenerationOptions["topK"];
  topP?: GenerationOptions["topP"];
  maxNewTokens: number;
  endTokens?: GenerationOptions["endTokens"];
  seed?: GenerationOptions["seed"];
  /** Tell the k most likely tokens beside each that was sampled; default 0. */
  topLogProbs?: number | undefined;
}

/** A new token of a completion. */
export interface BatchToken {
  /** What `add` returned. */
  request: number;
  sample: number;
  id: number;
  /** Under the model itself: temperature 1, nothing cut off. */
  logProb: number;
  /** The most likely tokens in its place, best first; left out unless asked for. */
  top?: { id: number; logProb: number }[];
  /** With the last token of a completion: an end token, or the length asked for (or the model's context) is used up. */
  finishReason: "stop" | "length" | null;
}

export interface BatchOptions {
  /** Completions computed at once at most; further ones wait. Default 64. */
  maxRows?: number | undefined;
  /** Tokens of the key/value cache, which is taken whole with the first step; default 32768. */
  maxCacheTokens?: number | undefined;
}

/** What a batch takes of its engine. */
export interface BatchEngine {
  config: ModelConfig;
  /** Waits for the engine's turn; throws when the batch cannot go on. */
  turn(): Promise<void>;
  open(options: NativeBatchOptions): Promise<NativeBatch>;
  /** @throws TemporaError for a name that no adapter has. */
  adapterId(name: string | null | undefined): number;
}

const defaults = { maxRows: 64, maxCacheTokens: 32_768 };

interface Running {
  top: number;
  /** By sample. */
  done: boolean[];
  left: number;
}

/**
 * Completions that begin and end while others go on. What a completion becomes depends on the weights and on its own
 * request, as in `Engine.generate`, never on what runs beside it. Beginnings that prompts of one adapter share, with each
 * other or with earlier completions, are computed once as long as the cache holds them. Disposing ends everything.
 */
export class GenerationBatch implements Disposable {
  readonly #engine: BatchEngine;
  readonly #options: NativeBatchOptions;
  readonly #running = new Map<number, Running>();
  /** What the native batch is told before the next step. */
  #changes: ((batch: NativeBatch) => void)[] = [];
  #native: NativeBatch | null = null;
  #next = 0;
  #rows = 0;
  #disposed = false;

  constructor(engine: BatchEngine, options: BatchOptions) {
    const { maxRows, maxCacheTokens } = { ...defaults, ...options };
    this.#engine = engine;
    this.#options = {
      maxRows: checkNumber(maxRows ?? defaults.maxRows, "maxRows", { least: 1, most: 0x7fffffff, integer: true }),
      maxCacheTokens: checkNumber(maxCacheTokens ?? defaults.maxCacheTokens, "maxCacheTokens", {
        least: 1,
        most: 0x7fffffff,
        integer: true,
      }),
    };
  }

  /** Completions that are not finished. */
  get rows(): number {
    return this.#rows;
  }

  /**
   * Adds a prompt; its first tokens come with one of the next steps. Returns the request's number.
   * @throws TemporaError for a value out of range, an unknown adapter, and for a prompt that is empty, leaves no room in the model's context or
   * does not fit into the cache with its completion.
   */
  add(request: BatchRequest): number {
    const number = this.#next;
    const native = this.#nativeRequest(request, number);
    this.#next++;
    const { samples, top } = native;
    this.#running.set(number, { top, done: new Array<boolean>(samples).fill(false), left: samples });
    this.#rows += samples;
    this.#changes.push((batch) => batch.add(native));
    return number;
  }

  /** Ends a request, or one of its samples, at once. Nothing happens where it is finished already. */
  end(request: number, sample?: number): void {
    const running = this.#running.get(request);
    if (running === undefined || running.left === 0) return;
    const samples = sample === undefined ? [...running.done.keys()] : [sample];
    for (const one of samples) this.#finish(running, one);
    this.#changes.push((batch) => batch.end(request, sample ?? -1));
  }

  /**
   * Computes prompts, some hundred tokens at most, and makes a token of each completion whose prompt is computed. Not to be
   * called again before the promise is settled, nor after it was rejected.
   */
  async step(): Promise<BatchToken[]> {
    await this.#engine.turn();
    this.#native ??= await this.#engine.open(this.#options);
    const batch = this.#native;
    for (const change of this.#changes.splice(0)) change(batch);
    const ended = [...this.#running].filter(([, { left }]) => left === 0);
    const step = await cancellable(undefined, (cancel) => batch.step(cancel)).catch((error: unknown) => {
      if (this.#disposed) return null;
      throw error;
    });
    if (step === null || this.#disposed) return [];
    const tokens = this.#tokensOf(step);
    for (const [number] of ended) this.#running.delete(number);
    return tokens;
  }

  dispose(): void {
    this.#disposed = true;
    this.#native?.dispose();
    this.#running.clear();
    this.#rows = 0;
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  #nativeRequest(request: BatchRequest, number: number): NativeBatchRequest {
    const { ids, adapter, key, samples = 1, topLogProbs = 0, ...options } = request;
    const { config } = this.#engine;
    const { forest, leaves } = promptForest([{ ids, key: key ?? 0, samples }], config);
    const checked = generationRequest(forest, leaves, options, config).options;
    const top = checkNumber(topLogProbs, "topLogProbs", { least: 0, most: config.vocabSize, integer: true });
    const length = Math.min(ids.length + checked.maxNewTokens, config.maxPositions);
    const { maxCacheTokens } = this.#options;
    if (pages(length) + cachePage > maxCacheTokens) {
      throw new TemporaError(`A completion of ${length} tokens with its prompt does not fit into the cache`, {
        remedy: `Ask for fewer tokens, or give a maxCacheTokens of ${pages(length) + cachePage} or more.`,
      });
    }
    const { temperature, topK, topP, maxNewTokens, endTokens } = checked;
    const sampling = { temperature, topK, topP, maxNewTokens, endTokens, seed: options.seed ?? 0 };
    const own = { number, ids: Int32Array.from(ids), adapter: this.#engine.adapterId(adapter) };
    return { ...own, samples, key: key ?? 0, top, ...sampling };
  }

  #tokensOf(step: NativeBatchStep): BatchToken[] {
    const tokens: BatchToken[] = [];
    let at = 0;
    step.requests.forEach((request, i) => {
      const running = this.#running.get(request) as Running;
      const sample = step.samples[i] as number;
      const first = at;
      at += running.top;
      if (running.done[sample]) return; // ended while the step ran
      const end = step.finished[i] as number;
      const finishReason = end === 0 ? null : end === 1 ? "stop" : "length";
      const token: BatchToken = {
        request,
        sample,
        id: step.tokens[i] as number,
        logProb: step.logProbs[i] as number,
        finishReason,
      };
      if (running.top > 0) {
        const ids = step.topIds.subarray(first, at);
        token.top = Array.from(ids, (id, k) => ({ id, logProb: step.topLogProbs[first + k] as number }));
      }
      tokens.push(token);
      if (finishReason !== null) this.#finish(running, sample);
    });
    return tokens;
  }

  #finish(running: Running, sample: number): void {
    if (running.done[sample] !== false) return;
    running.done[sample] = true;
    running.left--;
    this.#rows--;
  }
}

export function weightsChanged(): TemporaError {
  return new TemporaError("The weights changed while a generation was running", {
    remedy: "Take all completions, or leave the loop, before training or loading goes on.",
  });
}
