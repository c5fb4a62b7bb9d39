import { TemporaError } from "@tempora/errors";
import type { NativeForest, NativeGenerationRequest, NativeGenerationStep } from "./addon.ts";
import { checkForest, checkIds, checkNode, checkNumber } from "./check.ts";
import { type Forest, ForestBuilder } from "./forest.ts";
import type { ModelConfig } from "./model.ts";
import { StopStrings } from "./stop-strings.ts";

export interface GenerationPrompt {
  ids: ArrayLike<number>;
  /** Keys the random numbers, so that a completion does not depend on the prompt's place; default: its index. */
  key?: number | undefined;
  /** Completions of this prompt; default: `n` of the options. */
  samples?: number | undefined;
  /** The adapter that it goes through: a name, null for the base; default: the active one. */
  adapter?: string | null | undefined;
}

/** A node of a forest to continue: everything on its path is the prompt. */
export interface GenerationLeaf {
  node: number;
  key?: number | undefined;
  samples?: number | undefined;
  /** Default: that of the options. */
  seed?: number | undefined;
}

export interface GenerationOptions {
  /** Completions of each prompt; default 1. */
  n?: number | undefined;
  /** 0 is greedy; default 1. */
  temperature?: number | undefined;
  /** Only the k most likely tokens; 0 (default) for all. */
  topK?: number | undefined;
  /** Only the most likely tokens whose mass reaches p; default 1, all. */
  topP?: number | undefined;
  maxNewTokens: number;
  /** Token ids that end a completion; they are part of it. */
  endTokens?: readonly number[] | undefined;
  /** Texts that end a completion with the token that completes them. */
  stop?: { strings: readonly string[]; decode(ids: number[]): string } | undefined;
  seed?: number | undefined;
  /** Completions computed at once; default 64. With maxCacheTokens it bounds the memory. */
  maxRows?: number | undefined;
  /** Tokens of the key/value cache; default: enough for maxRows of the longest prompts. */
  maxCacheTokens?: number | undefined;
  signal?: AbortSignal | undefined;
  onProgress?: ((progress: GenerationProgress) => void) | undefined;
}

export interface GenerationProgress {
  newTokens: number;
  /** Completions done, of `total`. */
  finished: number;
  total: number;
}

export interface Completion {
  /** Index of the prompt (or leaf), and of the sample among its samples. */
  prompt: number;
  sample: number;
  ids: number[];
  /** Log-prob of each id under the model itself: temperature 1, nothing cut off. */
  logProbs: number[];
  /** "length": maxNewTokens or the model's context were used up. */
  finishReason: "stop" | "length";
}

/** The cache keeps tokens in pages; native/src/backend/backend.h, kCachePage. */
export const cachePage = 16;
const defaultRows = 64;
/** Decoding steps of one native call: few where a stop string may make the rest of them wasted work. */
const stepsAtOnce = { plain: 16, withStop: 4 };

/** Prompts as a forest of roots; equal prompts share one. */
export function promptForest(
  prompts: readonly GenerationPrompt[],
  config: ModelConfig,
): { forest: Forest; leaves: GenerationLeaf[] } {
  if (prompts.length === 0) throw new TemporaError("There are no prompts", { remedy: "Give at least one prompt." });
  const builder = new ForestBuilder();
  const leaves = prompts.map((prompt, index) => {
    if (prompt.ids?.length === 0) {
      throw new TemporaError(`Prompt ${index} is empty`, {
        remedy: "Start it with at least one token, such as the model's BOS token.",
      });
    }
    checkIds(prompt.ids, config.vocabSize, (position) => `position ${position} of prompt ${index}`);
    return { node: builder.share(prompt.ids, -1, false, prompt.adapter), key: prompt.key, samples: prompt.samples };
  });
  return { forest: builder.build(), leaves };
}

/** Cache tokens of whole pages. */
export function pages(tokens: number): number {
  return Math.ceil(tokens / cachePage) * cachePage;
}

/** Cache tokens of one row with its prompt to itself. */
function rowTokens(forest: Forest, leaf: number, newTokens: number): number {
  let tokens = pages(newTokens);
  for (let node = leaf; node >= 0; node = forest.nodeParent[node] as number) {
    tokens += pages((forest.nodeStart[node + 1] as number) - (forest.nodeStart[node] as number));
  }
  return tokens;
}

function checkOptions(options: GenerationOptions, config: ModelConfig): void {
  const whole = { integer: true, most: 0x7fffffff };
  checkNumber(options.maxNewTokens, "maxNewTokens", { ...whole, least: 1 });
  checkNumber(options.n ?? 1, "n", { ...whole, least: 1 });
  checkNumber(options.temperature ?? 1, "temperature", { least: 0 });
  checkNumber(options.topK ?? 0, "topK", { ...whole, least: 0 });
  checkNumber(options.topP ?? 1, "topP", { above: 0, most: 1 });
  checkNumber(options.seed ?? 0, "seed", { least: 0, integer: true });
  checkNumber(options.maxRows ?? defaultRows, "maxRows", { ...whole, least: 1 });
  checkNumber(options.maxCacheTokens ?? 1, "maxCacheTokens", { least: 1, integer: true });
  checkIds(options.endTokens ?? [], config.vocabSize, (index) => `endTokens[${index}]`);
  if (options.stop?.strings.some((text) => text === "")) {
    throw new TemporaError("A stop string is empty", { remedy: "Leave it out." });
  }
}

/** The native request, with every default filled in and every value checked. */
export function generationRequest(
  forest: Forest,
  leaves: readonly GenerationLeaf[],
  options: GenerationOptions,
  config: ModelConfig,
  native: NativeForest = { ...forest, rootAdapter: new Int32Array(0) },
): NativeGenerationRequest {
  if (leaves.length === 0)
    throw new TemporaError("There are no leaves to continue", { remedy: "Name at least one node." });
  const ends = checkForest(forest, config);
  checkOptions(options, config);
  let widest = 0;
  leaves.forEach((leaf, index) => {
    checkNode(leaf.node, forest, `leaves[${index}]`);
    checkNumber(leaf.key ?? index, `the key of prompt ${index}`, { least: 0, integer: true });
    checkNumber(leaf.seed ?? 0, `the seed of prompt ${index}`, { least: 0, integer: true });
    checkNumber(leaf.samples ?? 1, `the samples of prompt ${index}`, { least: 1, most: 0x7fffffff, integer: true });
    const length = ends[leaf.node] as number;
    if (length >= config.maxPositions) {
      throw new TemporaError(
        `Prompt ${index} has ${length} tokens, and the model takes ${config.maxPositions} with the answer`,
        {
          remedy: "Shorten the prompt or drop it.",
        },
      );
    }
    const newTokens = Math.min(options.maxNewTokens, config.maxPositions - length);
    widest = Math.max(widest, rowTokens(forest, leaf.node, newTokens));
  });
  const samples = Int32Array.from(leaves, (leaf) => leaf.samples ?? options.n ?? 1);
  const maxRows = options.maxRows ?? defaultRows;
  const rowsAtOnce = Math.min(
    maxRows,
    samples.reduce((sum, count) => sum + count, 0),
  );
  return {
    forest: native,
    leaves: Int32Array.from(leaves, (leaf) => leaf.node),
    samples,
    promptKeys: Float64Array.from(leaves, (leaf, index) => leaf.key ?? index),
    seeds: Float64Array.from(leaves, (leaf) => leaf.seed ?? options.seed ?? 0),
    options: {
      temperature: options.temperature ?? 1,
      topK: options.topK ?? 0,
      topP: options.topP ?? 1,
      maxNewTokens: options.maxNewTokens,
      endTokens: Int32Array.from(options.endTokens ?? []),
      maxRows,
      maxCacheTokens: options.maxCacheTokens ?? rowsAtOnce * widest,
    },
  };
}

interface Row {
  ids: number[];
  logProbs: number[];
}

/** Gathers the rows' tokens, step by step, into completions. */
export class CompletionCollector {
  /** The first row of each prompt, and how many there are in all. */
  readonly #firstRow: Float64Array;
  /** Only those that have begun and not ended: of all that are asked for there may be millions. */
  readonly #running = new Map<number, Row>();
  readonly #stop: StopStrings | null;
  readonly #onProgress: GenerationOptions["onProgress"];
  readonly stepsAtOnce: number;
  #newTokens = 0;
  #finished = 0;

  constructor(request: NativeGenerationRequest, options: GenerationOptions) {
    const { samples } = request;
    this.#firstRow = new Float64Array(samples.length + 1);
    samples.forEach((count, prompt) => {
      this.#firstRow[prompt + 1] = (this.#firstRow[prompt] as number) + count;
    });
    this.#stop =
      options.stop && options.stop.strings.length > 0
        ? new StopStrings(options.stop.strings, options.stop.decode)
        : null;
    this.#onProgress = options.onProgress;
    this.stepsAtOnce = this.#stop === null ? stepsAtOnce.plain : stepsAtOnce.withStop;
  }

  /** Takes one step in. Returns the completions it finished, and the rows to end because a stop string is complete. */
  take(step: NativeGenerationStep): { completions: Completion[]; stopped: Int32Array } {
    const completions: Completion[] = [];
    const stopped = new Set<number>();
    step.rows.forEach((number, i) => {
      if (stopped.has(number)) return; // computed in the same call as the token that completed a stop string
      const row = this.#running.get(number) ?? { ids: [], logProbs: [] };
      row.ids.push(step.tokens[i] as number);
      row.logProbs.push(step.logProbs[i] as number);
      this.#newTokens++;
      const end = step.finished[i] as number;
      const stop = this.#stop?.completedBy(row.ids) ?? false;
      if (end === 0 && !stop) {
        this.#running.set(number, row);
        return;
      }
      if (end === 0) stopped.add(number);
      this.#running.delete(number);
      this.#finished++;
      const prompt = this.#promptOf(number);
      const sample = number - (this.#firstRow[prompt] as number);
      completions.push({ prompt, sample, ...row, finishReason: end === 2 && !stop ? "length" : "stop" });
    });
    this.#onProgress?.({
      newTokens: this.#newTokens,
      finished: this.#finished,
      total: this.#firstRow.at(-1) as number,
    });
    return { completions, stopped: Int32Array.from(stopped) };
  }

  #promptOf(row: number): number {
    let [first, end] = [0, this.#firstRow.length - 1];
    while (end - first > 1) {
      const middle = (first + end) >> 1;
      if ((this.#firstRow[middle] as number) <= row) first = middle;
      else end = middle;
    }
    return first;
  }
}
