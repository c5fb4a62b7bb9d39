import { describe, expect, test } from "vitest";
import { type AdapterConfig, adapterModules } from "./adapter-config.ts";
import { Engine } from "./engine.ts";
import type { ParameterMoments } from "./engine-types.ts";
import { ForestBuilder } from "./forest.ts";
import { collect, modelOf, pairForest, random, sigmoid, weights } from "./testing/engines.ts";
import { richConfig, someIds, tinyConfig } from "./testing/models.ts";

const config: AdapterConfig = { rank: 2, alpha: 4, targets: ["q_proj", "down_proj"] };

/** Trains an adapter for a step, so that it changes what the model says. */
async function trained(engine: Engine, name: string, seed: number, adapter = config): Promise<void> {
  const { forest, pairs } = pairForest(engine.config, 2, 6);
  await engine.adapters.add(name, adapter, { seed });
  await engine.adapters.activate(name);
  await engine.preferenceStep(forest, pairs, sigmoid);
  await engine.optimizerStep({ learningRate: 0.05 });
  await engine.adapters.activate(null);
}

async function tensorBytes(engine: Engine, name: string): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  for await (const { bytes } of engine.adapters.tensors(name)) parts.push(bytes);
  return Buffer.concat(parts);
}

describe("adapterModules", () => {
  const named = (targets: AdapterConfig["targets"]) =>
    adapterModules({ ...config, targets }, tinyConfig).map(({ name }) => name.replace("model.layers.", ""));

  test("takes names, ends of names, expressions and all-linear", () => {
    expect(named(["v_proj"])).toEqual(["0.self_attn.v_proj", "1.self_attn.v_proj"]);
    expect(named(["layers.1.mlp.up_proj", "model.layers.0.mlp.gate_proj"])).toEqual([
      "0.mlp.gate_proj",
      "1.mlp.up_proj",
    ]);
    expect(named(".*\\.1\\.self_attn\\.[qk]_proj")).toEqual(["1.self_attn.q_proj", "1.self_attn.k_proj"]);
    expect(named("all-linear")).toHaveLength(14);
    expect(named(undefined)).toHaveLength(14);
  });

  test("scales by alpha / rank, by √rank with rsLora, and by patterns", () => {
    const scales = (more: Partial<AdapterConfig>) =>
      adapterModules({ rank: 4, alpha: 8, targets: ["q_proj"], ...more }, tinyConfig).map(({ rank, scale }) => [
        rank,
        scale,
      ]);
    expect(scales({})).toEqual([
      [4, 2],
      [4, 2],
    ]);
    expect(scales({ rsLora: true })).toEqual([
      [4, 4],
      [4, 4],
    ]);
    expect(scales({ ranks: { "1.self_attn.q_proj": 16 }, alphas: { "layers.0.*": 4 } })).toEqual([
      [4, 1],
      [16, 0.5],
    ]);
  });

  test.each<[string, Partial<AdapterConfig>, string]>([
    ["the head", { targets: ["lm_head"] }, "An adapter of lm_head fits no matrix"],
    ["an unknown name beside known ones", { targets: ["q_proj", "c_attn"] }, "An adapter of c_attn fits no matrix"],
    ["an expression that matches nothing", { targets: "nothing" }, "The adapter fits no matrix"],
    ["a broken expression", { targets: "(" }, "is no regular expression"],
    ["no rank", { rank: 0 }, "rank is 0"],
    ["dropout of everything", { dropout: 1 }, "dropout is 1"],
    ["an alpha that is no number", { alpha: Number.NaN }, "alpha is NaN"],
  ])("refuses %s", (_, change, message) => {
    expect(() => adapterModules({ ...config, ...change }, tinyConfig)).toThrow(message);
  });
});

describe("adapters", () => {
  test("begin as the base, and train without it", async () => {
    using engine = await random(richConfig);
    const { forest, pairs } = pairForest(richConfig, 2, 6);
    const before = await weights(engine);
    const { token } = await engine.logProbs(forest);
    await engine.adapters.add("new", { rank: 3, alpha: 6 });
    await engine.adapters.activate("new");
    expect(engine.adapters.active).toBe("new");
    expect(engine.trainable.map(({ name }) => name)).toContain("model.layers.1.mlp.up_proj.lora_B.weight");
    expect((await engine.logProbs(forest)).token).toEqual(token);
    const first = await engine.preferenceStep(forest, pairs, sigmoid);
    const gradient = await engine.getGradient("model.layers.0.self_attn.v_proj.lora_B.weight");
    expect(gradient.some((value) => value !== 0)).toBe(true);
    expect((await engine.getGradient("model.norm.weight")).every((value) => value === 0)).toBe(true);
    await engine.optimizerStep({ learningRate: 0.02 });
    const second = await engine.preferenceStep(forest, pairs, sigmoid);
    expect(second.loss).toBeLessThan(first.loss);
    expect((await weights(engine)).equals(before)).toBe(true);
    await engine.adapters.activate(null);
    expect((await engine.logProbs(forest)).token).toEqual(token);
  });

  test("are chosen by the requests of one batch, and give each what it gets alone, whatever is active", async () => {
    using engine = await random(richConfig);
    for (const [name, seed] of [["a", 1], ["b", 2]] as const) await trained(engine, name, seed); // biome-ignore format: short
    // Over a page, so that what requests of one adapter share is held once, and others' is not taken for it.
    const [ids, longer] = [someIds(37, 61, 3), [...someIds(37, 61, 3), 8, 9]];
    const through = ["b", null, "a"] as const;
    const settings = { maxNewTokens: 12, seed: 5 };
    const alone: [number, number][][] = [];
    for (const [prompt, adapter] of [ids, longer].flatMap((one) => through.map((name) => [one, name] as const))) {
      await engine.adapters.activate(adapter);
      const [made] = await collect(engine.generate([{ ids: prompt, key: 1 }], settings));
      alone.push((made?.ids ?? []).map((id, k) => [id, made?.logProbs[k] ?? Number.NaN]));
    }
    expect(new Set(alone.map((tokens) => JSON.stringify(tokens))).size).toBe(6);
    await engine.adapters.activate("b");
    // In the smallest one rows give way to each other, and a tree's pages to those of another adapter.
    for (const maxCacheTokens of [2048, 224, 80]) {
      using batch = engine.batch({ maxCacheTokens });
      const made: [number, number][][] = alone.map(() => []);
      const add = (prompt: number[]) => {
        for (const adapter of through) batch.add({ ids: prompt, key: 1, adapter, ...settings });
      };
      add(ids);
      for (let step = 0; step < 3 || batch.rows > 0; step++) {
        if (step === 2) add(longer);
        for (const { request, id, logProb } of await batch.step()) made[request]?.push([id, logProb]);
      }
      expect(made).toEqual(alone);
      expect(() => batch.add({ ids, adapter: "c", maxNewTokens: 1 })).toThrow(/no adapter "c"/);
    }
    expect(engine.adapters.active).toBe("b");
    using batch = engine.batch();
    batch.add({ ids, key: 1, adapter: "a", ...settings });
    await batch.step();
    await engine.adapters.remove("a");
    await expect(batch.step()).rejects.toThrow("The weights changed while a generation was running");
  });

  test("are chosen by the roots of a forest, in scoring and in generation", async () => {
    using engine = await random(tinyConfig);
    await trained(engine, "one", 1);
    await trained(engine, "two", 2, { rank: 4, alpha: 4 });
    const ids = someIds(7, tinyConfig.vocabSize, 3);
    const answer = someIds(4, tinyConfig.vocabSize, 4);
    const names = ["one", "two", null] as const;
    const build = (adapters: readonly (string | null)[]) => {
      const builder = new ForestBuilder();
      for (const adapter of adapters) builder.share(answer, builder.share(ids, -1, false, adapter));
      return builder.build();
    };
    const together = await engine.logProbs(build(names));
    for (const [i, name] of names.entries()) {
      const own = await engine.logProbs(build([name]));
      expect(Math.abs((together.node[2 * i + 1] as number) - (own.node[1] as number))).toBeLessThan(1e-4);
    }
    expect(new Set(together.node.filter((_, node) => node % 2 === 1)).size).toBe(3);

    const options = { maxNewTokens: 6, n: 2, seed: 5 };
    const all = await collect(
      engine.generate(
        names.map((adapter) => ({ ids, key: 1, adapter })),
        options,
      ),
    );
    for (const [i, adapter] of names.entries()) {
      const own = await collect(engine.generate([{ ids, key: 1, adapter }], options));
      expect(own.map(({ ids, logProbs }) => ({ ids, logProbs }))).toEqual(
        all.filter(({ prompt }) => prompt === i).map(({ ids, logProbs }) => ({ ids, logProbs })),
      );
    }
    await engine.adapters.activate("two");
    const active = await collect(engine.generate([{ ids, key: 1 }], options));
    // A request that names none goes through the active one.
    using batch = engine.batch();
    batch.add({ ids, key: 1, samples: 2, maxNewTokens: 6, seed: 5 });
    const live: number[][] = [[], []];
    while (batch.rows > 0) for (const { sample, logProb } of await batch.step()) live[sample]?.push(logProb);
    expect(live).toEqual(active.map(({ logProbs }) => logProbs));
    expect(active.map(({ logProbs }) => logProbs)).toEqual(
      all.filter(({ prompt }) => prompt === 1).map(({ logProbs }) => logProbs),
    );
  });

  test("go to another engine, and resume there bit for bit", async () => {
    const adapter = { ...config, dropout: 0.2 };
    const { forest, pairs } = pairForest(tinyConfig, 2, 6);
    using straight = await random(tinyConfig);
    await trained(straight, "mine", 1, adapter);
    await straight.adapters.activate("mine");
    using resumed = await Engine.load(await modelOf(straight), { device: "cpu" });
    await resumed.adapters.load("theirs", straight.adapters.save("mine"), { seed: 1 });
    await resumed.adapters.activate("theirs");
    await resumed.setOptimizerState(straight.optimizerSteps, await Array.fromAsync(straight.moments()));
    for (const engine of [straight, resumed]) {
      await engine.preferenceStep(forest, pairs, sigmoid);
      await engine.optimizerStep({ learningRate: 1e-2 });
    }
    expect((await tensorBytes(resumed, "theirs")).equals(await tensorBytes(straight, "mine"))).toBe(true);
    const moments: ParameterMoments[] = await Array.fromAsync(resumed.moments());
    expect(moments.map(({ name }) => name)).toEqual(resumed.adapters.parameters("theirs").map(({ name }) => name));
  });

  test("are copied within an engine", async () => {
    using engine = await random(tinyConfig);
    await trained(engine, "one", 1);
    await engine.adapters.load("past", engine.adapters.save("one"));
    expect((await tensorBytes(engine, "past")).equals(await tensorBytes(engine, "one"))).toBe(true);
    expect(engine.adapters.names).toEqual(["one", "past"]);
  });

  test("merge into the base and leave it as it was", async () => {
    using engine = await random(tinyConfig);
    await trained(engine, "one", 1);
    const { forest } = pairForest(tinyConfig, 2, 6);
    const before = await weights(engine);
    await engine.adapters.activate("one");
    const with_ = await engine.logProbs(forest);
    await expect(engine.adapters.merge("one")).rejects.toThrow("active");
    await engine.adapters.activate(null);
    await engine.adapters.merge("one");
    const merged = await engine.logProbs(forest);
    for (const [i, value] of with_.token.entries())
      expect(Math.abs(value - (merged.token[i] as number))).toBeLessThan(1e-4);
    expect((await weights(engine)).equals(before)).toBe(false);
    await engine.adapters.unmerge("one");
    expect((await weights(engine)).equals(before)).toBe(true);
  });

  test("are trained over quantised weights, which are not", async () => {
    using plain = await random(tinyConfig);
    using engine = await Engine.load(await modelOf(plain), { device: "cpu", quantize: "nf4" });
    const { forest, pairs } = pairForest(tinyConfig, 2, 6);
    await expect(engine.preferenceStep(forest, pairs, sigmoid)).rejects.toThrow("activate an adapter");
    // What the weights stand for, in a plain engine: the same model.
    using same = await Engine.load(await modelOf(engine), { device: "cpu" });
    const [quantised, dequantised] = [await engine.logProbs(forest), await same.logProbs(forest)];
    for (const [i, value] of quantised.token.entries()) {
      expect(Math.abs(value - (dequantised.token[i] as number))).toBeLessThan(1e-4);
    }
    const before = await weights(engine);
    const losses: number[] = [];
    await engine.adapters.add("mine", { rank: 4, alpha: 8 });
    await engine.adapters.activate("mine");
    for (let step = 0; step < 3; step++) {
      losses.push((await engine.preferenceStep(forest, pairs, sigmoid)).loss);
      await engine.optimizerStep({ learningRate: 0.02 });
    }
    expect(losses[2]).toBeLessThan(losses[0] as number);
    expect((await weights(engine)).equals(before)).toBe(true);
    await engine.adapters.activate(null);
    await expect(engine.adapters.merge("mine")).rejects.toThrow("quantized weights");
    expect(engine.memory().weights).toBeLessThan(plain.memory().weights);
  });

  test("end a generation when they change", async () => {
    using engine = await random(tinyConfig);
    await trained(engine, "one", 1);
    const completions = engine.generate([{ ids: [1, 2], adapter: "one" }], { maxNewTokens: 40, n: 3 });
    const all = (async () => {
      const removed = engine.adapters.remove("one");
      await collect(completions);
      await removed;
    })();
    await expect(all).rejects.toThrow();
  });

  test("say what is wrong", async () => {
    using engine = await random(tinyConfig);
    await engine.adapters.add("one", config);
    await expect(engine.adapters.add("one", config)).rejects.toThrow('There is an adapter "one" already');
    await expect(engine.adapters.activate("two")).rejects.toThrow('There is no adapter "two"');
    await expect(engine.adapters.unmerge("one")).rejects.toThrow("not merged");
    const builder = new ForestBuilder();
    const root = builder.add([1, 2], -1, false, "three");
    expect(() => builder.add([3], root, true, "one")).toThrow("Node 1 of a forest names an adapter below a root");
    await expect(engine.logProbs(builder.build())).rejects.toThrow('There is no adapter "three"');
    const source = engine.adapters.save("one");
    const short = { ...source, tensors: () => [...(source.tensors() as Iterable<never>)].slice(1) };
    await expect(engine.adapters.load("two", short)).rejects.toThrow(
      "lacks model.layers.0.self_attn.q_proj.lora_A.weight",
    );
    expect(engine.adapters.names).toEqual(["one"]);
  });
});
