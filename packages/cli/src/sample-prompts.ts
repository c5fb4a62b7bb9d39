import { type LoadedModel, type Sampled, sample } from "@tempora/run";
import type { Context } from "./context.ts";
import { formatCount } from "./format.ts";
import type { CacheFlags, SamplingFlags } from "./options.ts";
import type { PromptIds } from "./rows.ts";

export interface SampleFlags extends SamplingFlags, CacheFlags {
  n: number;
  stop: readonly string[];
}

/**
 * Samples [prompts][n], whatever order they end in, behind a bar of this name. A prompt's random numbers follow from the seed
 * and its place alone: every model is given the same.
 */
export async function samplePrompts(
  model: LoadedModel,
  rows: readonly PromptIds[],
  flags: SampleFlags,
  { label, context }: { label: string; context: Context },
): Promise<{ completions: Sampled[][]; tokens: number }> {
  const completions: Sampled[][] = rows.map(() => []);
  const stage = context.progress.stage(label, rows.length * flags.n, "completions");
  const began = performance.now();
  let tokens = 0;
  // Each row has samples of its own, also where another asks the same.
  const requests = rows.map(({ promptIds }, index) => ({ key: `row ${index}`, ids: promptIds, samples: flags.n }));
  const stream = sample(model, requests, {
    sampling: flags,
    limits: flags,
    stop: flags.stop,
    seed: flags.seed,
    signal: context.signal,
    onProgress: ({ newTokens, finished }) => {
      const rate = newTokens / ((performance.now() - began) / 1000);
      stage.update(finished, `${formatCount(newTokens)} tokens · ${formatCount(rate)} tokens/s`);
    },
  });
  for await (const completion of stream) {
    completions[completion.request]![completion.sample] = completion;
    tokens += completion.ids.length;
  }
  stage.finish();
  return { completions, tokens };
}
