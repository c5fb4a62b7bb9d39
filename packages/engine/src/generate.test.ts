import { describe, expect, test } from "vitest";
import { ForestBuilder } from "./forest.ts";
import type { GenerationOptions } from "./generate.ts";
import { collect, pairForest, path, random } from "./testing/engines.ts";
import { richConfig, someIds, tinyConfig } from "./testing/models.ts";

describe("generation", () => {
  const sampling: GenerationOptions = { temperature: 0.9, topP: 0.95, maxNewTokens: 24, seed: 11, endTokens: [5] };

  test("does not depend on what else is in the batch", async () => {
    using engine = await random(richConfig);
    const prompts = Array.from({ length: 21 }, (_, i) => ({ ids: someIds(3 + (i % 7), 61, i), key: 1000 + i }));
    const together = await collect(engine.generate(prompts, { ...sampling, n: 3 }));
    expect(together.length).toBe(63);
    const narrow = await collect(engine.generate(prompts, { ...sampling, n: 3, maxRows: 2 }));
    expect(narrow).toEqual(together);
    for (const index of [0, 8, 20]) {
      const alone = await collect(engine.generate([prompts[index] as (typeof prompts)[0]], { ...sampling, n: 3 }));
      expect(alone).toEqual(
        together.filter(({ prompt }) => prompt === index).map((completion) => ({ ...completion, prompt: 0 })),
      );
    }
  });

  test("gives each token the log-prob that scoring gives it", async () => {
    using engine = await random(richConfig);
    const ids = someIds(6, 61, 1);
    for (const { ids: made, logProbs } of await collect(engine.generate([{ ids }], { ...sampling, n: 4 }))) {
      const builder = new ForestBuilder();
      builder.add(made, builder.add(ids));
      const { token } = await engine.logProbs(builder.build());
      for (const [i, value] of logProbs.entries())
        expect(Math.abs(value - (token[ids.length + i] as number))).toBeLessThan(1e-4);
    }
  });

  test("ends with an end token, at the length asked for, and at the end of the context", async () => {
    using engine = await random(tinyConfig);
    const many = await collect(engine.generate([{ ids: [1, 2] }], { ...sampling, n: 60 }));
    for (const { ids, finishReason } of many) {
      expect(finishReason).toBe(ids.at(-1) === 5 ? "stop" : "length");
      expect(ids.indexOf(5)).toBe(finishReason === "stop" ? ids.length - 1 : -1);
      if (finishReason === "length") expect(ids.length).toBe(24);
    }
    expect(new Set(many.map(({ finishReason }) => finishReason))).toEqual(new Set(["stop", "length"]));
    const [cut] = await collect(engine.generate([{ ids: someIds(60, 61, 1) }], { maxNewTokens: 50 }));
    expect([cut?.ids.length, cut?.finishReason]).toEqual([4, "length"]);
  });

  test("cuts at the token that completes a stop string", async () => {
    using engine = await random(tinyConfig);
    const decode = (ids: number[]) => ids.map((id) => `<${id}>`).join("");
    const [free] = await collect(engine.generate([{ ids: [7] }], { temperature: 0, maxNewTokens: 24 }));
    const target = free?.ids[9] as number;
    const stop = { strings: [`<${free?.ids[8]}><${target}>`], decode };
    const progress: number[] = [];
    const [stopped] = await collect(
      engine.generate([{ ids: [7] }], {
        temperature: 0,
        maxNewTokens: 24,
        stop,
        onProgress: (p) => progress.push(p.newTokens),
      }),
    );
    const first = free?.ids.findIndex((id, i) => i > 0 && id === target && free.ids[i - 1] === free.ids[8]) as number;
    expect(stopped).toMatchObject({ ids: free?.ids.slice(0, first + 1), finishReason: "stop" });
    expect(stopped?.logProbs.length).toBe(first + 1);
    expect(progress.at(-1)).toBe(first + 1);
  });

  test("continues the leaves of a forest as it continues their whole paths", async () => {
    using engine = await random(richConfig);
    const builder = new ForestBuilder();
    const root = builder.add(someIds(9, 61, 1));
    const left = builder.add(someIds(4, 61, 2), root);
    const right = builder.add(someIds(1, 61, 3), root);
    const forest = builder.build();
    const leaves = [left, right, root].map((node, i) => ({ node, key: 50 + i, samples: 2 }));
    const shared = await collect(engine.generateForest(forest, leaves, sampling));
    const apart = await collect(
      engine.generate(
        [left, right, root].map((node, i) => ({
          ids: path(forest, node).flatMap((each) => [
            ...forest.tokens.subarray(forest.nodeStart[each], forest.nodeStart[each + 1]),
          ]),
          key: 50 + i,
          samples: 2,
        })),
        sampling,
      ),
    );
    expect(shared).toEqual(apart);
  });

  test("gives the same ids and log-probs however a prompt is cut into nodes", async () => {
    using engine = await random(richConfig);
    const ids = someIds(40, 61, 4);
    const continued = async (lengths: number[]) => {
      const builder = new ForestBuilder();
      let node = -1;
      let at = 0;
      for (const length of lengths) {
        node = builder.add(ids.slice(at, at + length), node);
        at += length;
      }
      expect(at).toBe(ids.length);
      return collect(engine.generateForest(builder.build(), [{ node, key: 9, samples: 3 }], sampling));
    };
    const whole = await continued([40]);
    for (const lengths of [ids.map(() => 1), [16, 16, 8], [1, 38, 1], [7, 24, 9]])
      expect(await continued(lengths)).toEqual(whole);
  });

  test("gives its cache back when the loop is left, and lets other calls in between", async () => {
    using engine = await random(tinyConfig);
    const { forest } = pairForest(tinyConfig, 1, 4);
    const before = await engine.logProbs(forest);
    for await (const { ids } of engine.generate([{ ids: [1] }], { n: 40, maxNewTokens: 20, maxRows: 4 })) {
      expect(ids.length).toBe(20);
      expect(await engine.logProbs(forest)).toEqual(before);
      break;
    }
    await engine.logProbs(forest);
    expect(engine.memory().cache).toBe(0);
  });

  test("ends with an error when the weights change meanwhile", async () => {
    using engine = await random(tinyConfig);
    const generation = engine.generate([{ ids: [1] }], { n: 40, maxNewTokens: 20, maxRows: 4 });
    await generation.next();
    await engine.supervisedStep(pairForest(tinyConfig, 1, 4).forest);
    await engine.optimizerStep({ learningRate: 0.1 });
    await expect(collect(generation)).rejects.toThrow(
      "The weights changed while a generation was running. Take all completions",
    );
  });

  test.each<[string, { ids: number[]; key?: number }, Partial<GenerationOptions>, string]>([
    ["an empty prompt", { ids: [] }, {}, "Prompt 0 is empty"],
    [
      "an id outside the vocabulary",
      { ids: [1, 61] },
      {},
      "Token id 61 at position 1 of prompt 0 lies outside the vocabulary",
    ],
    [
      "a prompt as long as the context",
      { ids: someIds(64, 61, 1) },
      {},
      "Prompt 0 has 64 tokens, and the model takes 64 with the answer",
    ],
    ["a negative key", { ids: [1], key: -1 }, {}, "the key of prompt 0 is -1"],
    ["no new tokens", { ids: [1] }, { maxNewTokens: 0 }, "maxNewTokens is 0"],
    ["topP 0", { ids: [1] }, { topP: 0 }, "topP is 0"],
    ["a negative temperature", { ids: [1] }, { temperature: -1 }, "temperature is -1"],
    ["a foreign end token", { ids: [1] }, { endTokens: [99] }, "Token id 99 at endTokens[0]"],
    ["an empty stop string", { ids: [1] }, { stop: { strings: [""], decode: () => "" } }, "A stop string is empty"],
    ["a cache that holds no path", { ids: [1] }, { maxCacheTokens: 1 }, "KV cache"],
  ])("refuses %s", async (_, prompt, options, message) => {
    using engine = await random(tinyConfig);
    await expect(collect(engine.generate([prompt], { ...sampling, ...options }))).rejects.toThrow(message);
  });
});
