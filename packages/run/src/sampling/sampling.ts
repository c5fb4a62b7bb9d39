import { createHash } from "node:crypto";
import { JsonlLog, withoutEnd } from "@tempora/text";
import { prefixForest } from "@tempora/training";
import type { LoadedModel } from "../models/model-host.ts";
import type { Meter } from "../results/ledger.ts";
import type { Settings } from "../settings/settings.ts";

/** A prompt to continue `samples` times. */
export interface SamplingRequest {
  /** Identifies the prompt's content: the same key, seed and sample give the same tokens, whatever else is sampled. */
  key: string;
  ids: readonly number[];
  /**
   * 0 where a resumed stage has them already. Such a request still shapes the forest: where prompts are split into nodes
   * decides the last bits of a log-prob, so a stage must give all of its requests, every time.
   */
  samples: number;
}

export interface Sampled {
  /** Index of the request. */
  request: number;
  sample: number;
  text: string;
  ids: number[];
  logProb: number;
  finishReason: "stop" | "length";
}

export interface SamplingOptions {
  sampling: Settings["sampling"];
  limits: Settings["generation"];
  seed: number;
  signal: AbortSignal | undefined;
}

/**
 * Samples completions of all requests; prefixes that requests share are computed once. Yields them as they finish: their
 * order means nothing, their content depends only on key, seed and sample.
 */
export async function* sample(
  model: LoadedModel,
  requests: readonly SamplingRequest[],
  options: SamplingOptions,
): AsyncGenerator<Sampled> {
  const wanted = requests.flatMap(({ samples }, index) => (samples > 0 ? [index] : []));
  if (wanted.length === 0) return;
  const { engine, tokenizer, endTokens } = model;
  const { forest, leaves } = prefixForest(requests.map(({ ids }) => ids));
  const ends = wanted.map((index) => {
    const { key, samples } = requests[index] as SamplingRequest;
    return { node: leaves[index] as number, samples, key: numberOf(key) };
  });
  const completions = engine.generateForest(forest, ends, {
    ...options.sampling,
    ...options.limits,
    endTokens,
    seed: options.seed,
    signal: options.signal,
  });
  for await (const completion of completions) {
    yield {
      request: wanted[completion.prompt] as number,
      sample: completion.sample,
      text: tokenizer.decode(withoutEnd(completion.ids, endTokens)),
      ids: completion.ids,
      logProb: completion.logProbs.reduce((sum, logProb) => sum + logProb, 0),
      finishReason: completion.finishReason,
    };
  }
}

/** Charges the prompts of a generation, each shared prefix once. */
export function meterPrompts(meter: Meter, requests: readonly SamplingRequest[]): void {
  if (requests.length > 0) meter.prompts(prefixForest(requests.map(({ ids }) => ids)).forest);
}

/** 48 bits of a hash: exact in a double. */
function numberOf(key: string): number {
  return createHash("sha256").update(key).digest().readUIntBE(0, 6);
}

/**
 * A log that takes rows one by one and writes them some at a time: what a kill may lose is computed again. The rows
 * found at the start are those of earlier attempts.
 */
export class BufferedLog<T> {
  #pending: T[] = [];

  private constructor(
    readonly log: JsonlLog<T>,
    readonly rows: readonly T[],
  ) {}

  static async open<T>(file: string): Promise<BufferedLog<T>> {
    const rows: T[] = [];
    return new BufferedLog(await JsonlLog.open<T>(file, ({ value }) => rows.push(value)), rows);
  }

  async add(row: T): Promise<void> {
    this.#pending.push(row);
    if (this.#pending.length >= 64) await this.flush();
  }

  async flush(): Promise<void> {
    if (this.#pending.length === 0) return;
    const rows = this.#pending;
    this.#pending = [];
    await this.log.append(rows);
  }

  /** Writes what is pending, also after a failure: it is good work. */
  async close(): Promise<void> {
    try {
      await this.flush();
    } finally {
      await this.log.close();
    }
  }
}
