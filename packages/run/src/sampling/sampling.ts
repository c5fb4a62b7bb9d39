import type { GenerationProgress } from "@tempora/engine";
import { withoutEnd } from "@tempora/text";
import { keyOf, prefixForest } from "@tempora/training";
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
  /** Of its random numbers; default: that of the options. */
  seed?: number;
  /** What it goes through, of models that are adapters over one base; default: the model's own. */
  adapter?: string | null;
}

export interface Sampled {
  /** Index of the request. */
  request: number;
  sample: number;
  /** Without the end token. */
  text: string;
  /** With the end token, where one was sampled. */
  ids: number[];
  /** Of each id under the model itself: temperature 1, nothing cut off. */
  logProbs: number[];
  /** "length": the tokens allowed, or the model's context, were used up. */
  finishReason: "stop" | "length";
}

export interface SamplingOptions {
  sampling: Settings["sampling"];
  limits: Settings["generation"];
  seed: number;
  /** Texts that end a completion with the token that completes them. */
  stop?: readonly string[];
  onProgress?: ((progress: GenerationProgress) => void) | undefined;
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
  const { forest, leaves } = prefixForest(
    requests.map(({ ids }) => ids),
    requests.map(({ adapter }) => adapter),
  );
  const ends = wanted.map((index) => {
    const { key, samples, seed: own } = requests[index] as SamplingRequest;
    return { node: leaves[index] as number, samples, key: keyOf(key), seed: own };
  });
  const { sampling, limits, stop = [], seed, onProgress, signal } = options;
  const completions = engine.generateForest(forest, ends, {
    temperature: sampling.temperature,
    topP: sampling.topP,
    topK: sampling.topK,
    maxNewTokens: sampling.maxNewTokens,
    maxRows: limits.maxRows,
    maxCacheTokens: limits.maxCacheTokens,
    endTokens,
    ...(stop.length === 0 ? {} : { stop: { strings: stop, decode: (ids) => tokenizer.decode(ids) } }),
    seed,
    onProgress,
    signal,
  });
  for await (const completion of completions) {
    yield {
      request: wanted[completion.prompt] as number,
      sample: completion.sample,
      text: tokenizer.decode(withoutEnd(completion.ids, endTokens)),
      ids: completion.ids,
      logProbs: completion.logProbs,
      finishReason: completion.finishReason,
    };
  }
}

/** Charges the prompts of a generation, each shared prefix once. */
export function meterPrompts(meter: Meter, requests: readonly SamplingRequest[]): void {
  if (requests.length > 0) meter.prompts(prefixForest(requests.map(({ ids }) => ids)).forest);
}
