import { setImmediate } from "node:timers/promises";
import type { Forest, GenerationProgress } from "@tempora/engine";
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
  /** Prompt tokens of a window at most, each request counted as 64 more; one that alone has more is a window of its own. */
  windowTokens?: number;
  /** Told the forest of each window's prompts. */
  onPrompts?: ((forest: Forest) => void) | undefined;
  signal: AbortSignal | undefined;
}

/**
 * Size of a window by default, in prompt tokens: requests are computed window after window, so that a million of them take the
 * memory of some ten thousand. The last completions of a window leave rows of a batch idle, and its prompts share nothing
 * with those of others: at this size neither is seen.
 */
const defaultWindowTokens = 1 << 22;

/** A request's own share of a window: its key, its completions and what is kept of them weigh as much as so many tokens. */
const requestTokens = 64;

/** Requests between two looks at what else the process has to do. */
const requestsAtOnce = 1000;

export type Requests = Iterable<SamplingRequest> | AsyncIterable<SamplingRequest>;

/**
 * Samples completions of all requests; prefixes that requests of a window share are computed once. Yields them as they
 * finish: their order means nothing, their content depends only on key, seed and sample.
 */
export async function* sample(
  model: LoadedModel,
  requests: Requests,
  options: SamplingOptions,
): AsyncGenerator<Sampled> {
  let first = 0;
  const before: GenerationProgress = { newTokens: 0, finished: 0, total: 0 };
  for await (const window of windowsOf(requests, options)) {
    let latest: GenerationProgress = { newTokens: 0, finished: 0, total: 0 };
    const onProgress = (progress: GenerationProgress) => {
      latest = progress;
      options.onProgress?.(sum(before, progress));
    };
    for await (const sampled of sampleWindow(model, window, { ...options, onProgress })) {
      yield { ...sampled, request: first + sampled.request };
    }
    Object.assign(before, sum(before, latest));
    first += window.length;
  }
}

function sum(a: GenerationProgress, b: GenerationProgress): GenerationProgress {
  return { newTokens: a.newTokens + b.newTokens, finished: a.finished + b.finished, total: a.total + b.total };
}

/** Charges the prompts of a generation, each prefix that a window shares once. */
export async function meterPrompts(meter: Meter, requests: Requests): Promise<void> {
  for await (const window of windowsOf(requests, {})) {
    meter.prompts(prefixForest(window.map(({ ids }) => ids)).forest);
  }
}

async function* windowsOf(
  requests: Requests,
  { windowTokens = defaultWindowTokens, signal }: Partial<SamplingOptions>,
): AsyncGenerator<SamplingRequest[]> {
  let window: SamplingRequest[] = [];
  let tokens = 0;
  for await (const request of requests) {
    const added = request.ids.length + requestTokens;
    if (window.length > 0 && tokens + added > windowTokens) {
      yield window;
      window = [];
      tokens = 0;
    }
    window.push(request);
    tokens += added;
    if (window.length % requestsAtOnce > 0) continue;
    await setImmediate();
    signal?.throwIfAborted();
  }
  if (window.length > 0) yield window;
}

async function* sampleWindow(
  { engine, tokenizer, endTokens }: LoadedModel,
  requests: readonly SamplingRequest[],
  options: SamplingOptions,
): AsyncGenerator<Sampled> {
  const { forest, leaves } = prefixForest(
    requests.map(({ ids }) => ids),
    requests.map(({ adapter }) => adapter),
  );
  options.onPrompts?.(forest);
  // Rows of one adapter lie together in a batch.
  const wanted = [...Map.groupBy(requests.keys(), (index) => requests[index]?.adapter).values()]
    .flat()
    .filter((index) => (requests[index] as SamplingRequest).samples > 0);
  if (wanted.length === 0) return;
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
