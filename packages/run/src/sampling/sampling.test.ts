import type { GenerationProgress } from "@tempora/engine";
import { afterAll, expect, it } from "vitest";
import { tinyJudge } from "../judges/testing/tiny-judge.ts";
import { type SamplingOptions, type SamplingRequest, sample } from "./sampling.ts";

const model = await tinyJudge();
afterAll(() => model[Symbol.dispose]());

const count = 40;
/** Prompts of 4 to 8 tokens; neighbours share their first three. */
const requests: SamplingRequest[] = Array.from({ length: count }, (_, k) => ({
  key: `prompt ${k}`,
  ids: [5, 6, 7, 10 + (k >> 1), ...Array.from({ length: k % 5 }, (_, i) => 20 + i)],
  samples: k % 3 === 2 ? 0 : 2,
}));

async function sampled(over: Partial<SamplingOptions>) {
  const progress: GenerationProgress[] = [];
  const forests: number[] = [];
  let read = 0;
  function* asked() {
    for (const request of requests) {
      read++;
      yield request;
    }
  }
  const readAtFirst: number[] = [];
  const completions: string[] = [];
  const options: SamplingOptions = {
    sampling: { temperature: 1, topP: 0.9, topK: 0, maxNewTokens: 6 },
    limits: { maxRows: 8, maxCacheTokens: 4096 },
    seed: 3,
    signal: undefined,
    onProgress: (one) => progress.push(one),
    onPrompts: ({ tokens }) => forests.push(tokens.length),
    ...over,
  };
  for await (const { request, sample: number, ids } of sample(model.loaded, asked(), options)) {
    readAtFirst.push(read);
    completions.push(`${request} ${number} ${ids.join(" ")}`);
  }
  return { completions: completions.sort(), progress, forests, readAtFirst };
}

it("gives the same completions in windows as at once, and reads no request before its window", async () => {
  const [whole, parts] = [await sampled({}), await sampled({ windowTokens: 600 })];
  expect(whole.forests.length).toBe(1);
  expect(parts.forests.length).toBeGreaterThan(4);
  // The start that all prompts have is in the forest of each window.
  const sum = (list: readonly number[]) => list.reduce((total, tokens) => total + tokens, 0);
  expect(sum(parts.forests)).toBeGreaterThanOrEqual(sum(whole.forests) + 3 * (parts.forests.length - 1));
  expect(parts.completions).toEqual(whole.completions);
  expect(new Set(whole.completions).size).toBe(2 * requests.filter(({ samples }) => samples > 0).length);
  expect(whole.readAtFirst[0]).toBe(count);
  expect(parts.readAtFirst[0]).toBeLessThan(12);
});

it("counts tokens and completions over all windows", async () => {
  const { progress, completions } = await sampled({ windowTokens: 600 });
  const finished = progress.map((one) => one.finished);
  expect(finished).toEqual([...finished].sort((a, b) => a - b));
  expect(finished.at(-1)).toBe(completions.length);
  const tokens = completions.reduce((total, one) => total + one.split(" ").length - 2, 0);
  expect(progress.at(-1)?.newTokens).toBe(tokens);
});

it("stops between two windows when it is asked to", async () => {
  const abort = new AbortController();
  const stopped = sampled({ windowTokens: 600, signal: abort.signal, onPrompts: () => abort.abort() });
  await expect(stopped).rejects.toThrow();
});
