import { Engine } from "@tempora/engine";
import { openCheckpoint } from "@tempora/models";
import { type SamplingRequest, sample } from "@tempora/run";
import { oracle } from "@tempora/testing";
import { Tokenizer } from "@tempora/text";
import { expect, test } from "vitest";

test("what a resumed stage samples is bit for bit what it would have sampled at first", async () => {
  const folder = oracle("qwen2", "policy");
  const [checkpoint, tokenizer] = await Promise.all([openCheckpoint(folder), Tokenizer.load(folder)]);
  using engine = await Engine.load(checkpoint);
  const model = { engine, checkpoint, tokenizer, endTokens: checkpoint.endTokens };
  // Beginnings in common, so that the prompts are split into nodes where they part.
  const texts = ["Name a red fruit.", "Name a red flower.", "Name a river.", "Name a red fruit, please.", "Count."];
  const requests = texts.map((text) => ({ key: text, ids: tokenizer.encode(text), samples: 3 }));
  const run = async (list: readonly SamplingRequest[]) => {
    const found = new Map<string, { ids: number[]; logProbs: number[] }>();
    const options = {
      sampling: { temperature: 1, topP: 1, topK: 0, maxNewTokens: 12 },
      limits: { maxRows: 64, maxCacheTokens: 65536 },
      seed: 3,
      signal: undefined,
    };
    for await (const { request, sample: number, ids, logProbs } of sample(model, list, options)) {
      found.set(`${request}.${number}`, { ids, logProbs });
    }
    return found;
  };
  const whole = await run(requests);
  expect(whole.size).toBe(15);
  for (const kept of [[0], [1, 4], [2, 3]]) {
    const rest = await run(requests.map((one, index) => (kept.includes(index) ? one : { ...one, samples: 0 })));
    expect([...rest.keys()].sort()).toEqual(kept.flatMap((index) => [0, 1, 2].map((k) => `${index}.${k}`)));
    for (const [key, completion] of rest) expect(completion).toEqual(whole.get(key));
  }
  expect((await run(requests.map((one) => ({ ...one, samples: 0 })))).size).toBe(0);
});
