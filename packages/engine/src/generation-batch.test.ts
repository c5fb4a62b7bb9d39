import { describe, expect, test } from "vitest";
import { ForestBuilder } from "./forest.ts";
import type { BatchOptions, BatchRequest, BatchToken, GenerationBatch } from "./generation-batch.ts";
import { collect, pairForest, random } from "./testing/engines.ts";
import { richConfig, someIds, tinyConfig } from "./testing/models.ts";

const sampling = { temperature: 0.9, topP: 0.95, maxNewTokens: 24, seed: 11, endTokens: [5] };

const requests: BatchRequest[] = Array.from({ length: 9 }, (_, i) => ({
  ids: someIds(3 + 2 * i, 61, i),
  key: 100 + i,
  samples: 1 + (i % 3),
  ...sampling,
  temperature: i % 4 === 3 ? 0 : 0.9,
  topK: i % 2 === 1 ? 20 : 0,
  maxNewTokens: 6 + 3 * i,
  seed: i,
}));

interface Made {
  ids: number[];
  logProbs: number[];
  finishReason: string | null;
}

/** Adds each request before the step of its number, and runs the batch to its end. By request and sample. */
async function run(batch: GenerationBatch, joining: ReadonlyMap<number, readonly BatchRequest[]>) {
  const made = new Map<string, Made>();
  const lastJoin = Math.max(...joining.keys());
  for (let step = 0; step <= lastJoin || batch.rows > 0; step++) {
    for (const request of joining.get(step) ?? []) batch.add(request);
    for (const token of await batch.step()) take(made, token);
  }
  return made;
}

function take(made: Map<string, Made>, { request, sample, id, logProb, finishReason }: BatchToken): void {
  const key = `${request}/${sample}`;
  const row = made.get(key) ?? { ids: [], logProbs: [], finishReason: null };
  made.set(key, row);
  expect(row.finishReason).toBeNull();
  row.ids.push(id);
  row.logProbs.push(logProb);
  row.finishReason = finishReason;
}

describe("a batch", () => {
  test("gives each request what generate gives it alone, whenever it joined", async () => {
    using engine = await random(richConfig);
    using batch = engine.batch();
    const joining = new Map<number, BatchRequest[]>();
    requests.forEach((request, i) => {
      joining.set(i * 2, [request]);
    });
    const made = await run(batch, joining);
    for (const [index, { ids, key, samples, ...options }] of requests.entries()) {
      for (const completion of await collect(engine.generate([{ ids, key, samples }], options))) {
        const { ids: own, logProbs, finishReason } = completion;
        expect(made.get(`${index}/${completion.sample}`)).toEqual({ ids: own, logProbs, finishReason });
      }
    }
    expect(made.size).toBe(requests.reduce((sum, { samples = 1 }) => sum + samples, 0));
  });

  test("goes on without a request, or a sample of it, that was ended", async () => {
    using engine = await random(richConfig);
    using batch = engine.batch();
    const endless = { ...sampling, endTokens: [], maxNewTokens: 20 };
    const [gone, pruned, whole] = [1, 2, 3].map((seed) => batch.add({ ids: [seed, 7], samples: 3, ...endless, seed }));
    const made = new Map<string, Made>();
    for (let step = 0; batch.rows > 0; step++) {
      if (step === 5) batch.end(gone as number);
      if (step === 8) batch.end(pruned as number, 1);
      for (const token of await batch.step()) take(made, token);
    }
    const lengths = (request: number | undefined) =>
      [0, 1, 2].map((sample) => made.get(`${request}/${sample}`)?.ids.length);
    expect(lengths(gone)).toEqual([5, 5, 5]);
    expect(lengths(pruned)).toEqual([20, 8, 20]);
    expect(lengths(whole)).toEqual([20, 20, 20]);
    batch.end(whole as number);
    batch.end(99);
  });

  test("in a cache that holds few of them gives the same, by computing again", async () => {
    using engine = await random(richConfig);
    const made = async (options: BatchOptions) => {
      using batch = engine.batch(options);
      return await run(batch, new Map([[0, requests]]));
    };
    expect(await made({ maxCacheTokens: 96 })).toEqual(await made({}));
    expect(await made({ maxRows: 1 })).toEqual(await made({}));
  });

  test("computes a long prompt some hundred tokens a step, while others get theirs", async () => {
    using engine = await random({ ...richConfig, maxPositions: 2048 });
    using batch = engine.batch();
    const long: BatchRequest = { ids: someIds(1300, 61, 1), maxNewTokens: 4, seed: 5 };
    const short: BatchRequest = { ids: [7], maxNewTokens: 8, seed: 6 };
    const steps: number[][] = [];
    const made: BatchToken[] = [];
    for (const request of [short, long]) batch.add(request);
    while (batch.rows > 0) {
      const tokens = await batch.step();
      steps.push(tokens.map(({ request }) => request));
      made.push(...tokens);
    }
    expect(steps.slice(0, 4)).toEqual([[0], [0], [0, 1], [0, 1]]);
    for (const [number, { ids, maxNewTokens, seed }] of [short, long].entries()) {
      const [alone] = await collect(engine.generate([{ ids, key: 0 }], { maxNewTokens, seed }));
      expect(made.filter(({ request }) => request === number).map(({ id }) => id)).toEqual(alone?.ids);
    }
  });

  test("holds what prompts share once: two fit where one with its own copy would", async () => {
    using engine = await random(tinyConfig);
    const together = async (first: number[], second: number[]) => {
      // Six pages for prompts of three: with a page of new tokens each, five pages together or eight.
      using batch = engine.batch({ maxCacheTokens: 96 });
      for (const ids of [first, second]) batch.add({ ids, maxNewTokens: 15 });
      const widths: number[] = [];
      while (batch.rows > 0) widths.push((await batch.step()).length);
      return Math.max(...widths);
    };
    const [one, other] = [someIds(49, 61, 1), someIds(49, 61, 2)];
    expect(await together(one, [...one.slice(0, 48), 5])).toBe(2);
    expect(await together(one, other)).toBe(1);
  });

  test("computes what a later prompt shares with an earlier answer once", async () => {
    using engine = await random(richConfig);
    using batch = engine.batch();
    const prompt = someIds(40, 61, 3);
    const first = await run(batch, new Map([[0, [{ ids: prompt, maxNewTokens: 10 }]]]));
    const answer = first.get("0/0")?.ids as number[];
    const second: BatchRequest = { ids: [...prompt, ...answer, 7], maxNewTokens: 5, seed: 4 };
    const steps: BatchToken[] = [];
    batch.add(second);
    while (batch.rows > 0) steps.push(...(await batch.step()));
    const [alone] = await collect(engine.generate([{ ids: second.ids, key: 0 }], { maxNewTokens: 5, seed: 4 }));
    expect(steps.map(({ id }) => id)).toEqual(alone?.ids);
    expect(steps.map(({ logProb }) => logProb)).toEqual(alone?.logProbs);
  });

  test("tells the most likely tokens beside each", async () => {
    using engine = await random(richConfig);
    using batch = engine.batch();
    const ids = someIds(6, 61, 1);
    batch.add({ ids, samples: 2, maxNewTokens: 8, seed: 2, topLogProbs: 3 });
    batch.add({ ids, maxNewTokens: 8, seed: 2, temperature: 0 });
    batch.add({ ids, maxNewTokens: 8, temperature: 0, topLogProbs: 1 });
    const tokens: BatchToken[] = [];
    while (batch.rows > 0) tokens.push(...(await batch.step()));
    const all = tokens.filter(({ request, sample }) => request === 0 && sample === 1);
    const builder = new ForestBuilder();
    builder.add(
      all.map(({ id }) => id),
      builder.add(ids),
    );
    const { top } = await engine.logProbs(builder.build(), { top: 3 });
    for (const [i, token] of all.entries()) {
      const at = 3 * (ids.length + i);
      expect(token.top?.map(({ id }) => id)).toEqual([...(top?.ids.subarray(at, at + 3) ?? [])]);
      const difference = token.top?.map(({ logProb }, k) => Math.abs(logProb - (top?.logProbs[at + k] as number)));
      expect(Math.max(...(difference ?? [1]))).toBeLessThan(1e-4);
    }
    for (const { request, id, logProb, top: best } of tokens) {
      if (request === 1) expect(best).toBeUndefined();
      if (request === 2) expect(best).toEqual([{ id, logProb }]);
    }
  });

  test("gives its memory back when it is disposed of", async () => {
    using engine = await random(tinyConfig);
    const batch = engine.batch();
    batch.add({ ids: [1, 2, 3], samples: 4, maxNewTokens: 20 });
    await batch.step();
    expect(engine.memory().cache).toBeGreaterThan(0);
    batch.dispose();
    batch.dispose();
    expect(batch.rows).toBe(0);
    await engine.logProbs(pairForest(tinyConfig, 1, 4).forest);
    expect(engine.memory().cache).toBe(0);
  });

  test("refuses what generate refuses, and goes on", async () => {
    using engine = await random(tinyConfig);
    using batch = engine.batch();
    expect(() => batch.add({ ids: [], maxNewTokens: 3 })).toThrow("Prompt 0 is empty");
    expect(() => batch.add({ ids: [1, 61], maxNewTokens: 3 })).toThrow("outside the vocabulary");
    expect(() => batch.add({ ids: someIds(64, 61, 1), maxNewTokens: 3 })).toThrow("takes 64 with the answer");
    expect(() => batch.add({ ids: [1], maxNewTokens: 3, topP: 2 })).toThrow("topP is 2");
    expect(() => batch.add({ ids: [1], maxNewTokens: 3, topLogProbs: 62 })).toThrow("topLogProbs is 62");
    expect(() => engine.batch({ maxRows: 0 })).toThrow("maxRows is 0");
    using small = engine.batch({ maxCacheTokens: 48 });
    expect(() => small.add({ ids: [1], maxNewTokens: 40 })).toThrow("maxCacheTokens of 64 or more");
    batch.add({ ids: [1], maxNewTokens: 3 });
    let tokens = 0;
    while (batch.rows > 0) tokens += (await batch.step()).length;
    expect(tokens).toBe(3);
  });

  test("ends with an error when the weights change meanwhile", async () => {
    using engine = await random(tinyConfig);
    using batch = engine.batch();
    batch.add({ ids: [1], maxNewTokens: 9 });
    await batch.step();
    await engine.supervisedStep(pairForest(tinyConfig, 1, 4).forest);
    await engine.optimizerStep({ learningRate: 0.1 });
    await expect(batch.step()).rejects.toThrow("The weights changed while a generation was running");
  });
});
