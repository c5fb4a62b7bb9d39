import { type LoadedModel, type Sampled, sample } from "@tempora/run";
import type { Context } from "./context.ts";
import { formatCount } from "./format.ts";
import type { CacheFlags, SamplingFlags } from "./options.ts";
import type { PromptIds } from "./rows.ts";

export interface SampleFlags extends SamplingFlags, CacheFlags {
  n: number;
  stop: readonly string[];
}

export interface SamplePlan {
  label: string;
  context: Context;
  /** What was sampled of the same prompts before. */
  earlier?: readonly Sampled[];
  onCompletion?(completion: Sampled): Promise<unknown>;
  signal?: AbortSignal;
}

/**
 * Samples [prompts][n], whatever order they end in, behind a bar of this name. A prompt's random numbers follow from the seed
 * and its place alone: every model is given the same.
 */
export async function samplePrompts(
  model: LoadedModel,
  rows: readonly PromptIds[],
  flags: SampleFlags,
  { label, context, earlier = [], onCompletion, signal = context.signal }: SamplePlan,
): Promise<{ completions: Sampled[][]; tokens: number }> {
  const completions: Sampled[][] = rows.map(() => []);
  for (const completion of earlier) completions[completion.request]![completion.sample] = completion;
  const stage = context.progress.stage(label, rows.length * flags.n, "completions");
  const began = performance.now();
  let tokens = earlier.reduce((sum, { ids }) => sum + ids.length, 0);
  // Each row has samples of its own, also where another asks the same.
  const requests = rows.map(({ promptIds }, index) => {
    const all = Object.keys(completions[index] as Sampled[]).length === flags.n;
    return { key: `row ${index}`, ids: promptIds, samples: all ? 0 : flags.n };
  });
  const before = earlier.length;
  const stream = sample(model, requests, {
    sampling: flags,
    limits: flags,
    stop: flags.stop,
    seed: flags.seed,
    signal,
    onProgress: ({ newTokens, finished }) => {
      const rate = newTokens / ((performance.now() - began) / 1000);
      stage.update(
        Math.min(before + finished, rows.length * flags.n),
        `${formatCount(newTokens)} tokens · ${formatCount(rate)} tokens/s`,
      );
    },
  });
  for await (const completion of stream) {
    const own = completions[completion.request] as Sampled[];
    // A prompt that lacks one sample gets all of its samples again.
    if (own[completion.sample] !== undefined) continue;
    own[completion.sample] = completion;
    tokens += completion.ids.length;
    await onCompletion?.(completion);
  }
  stage.finish();
  return { completions, tokens };
}
