import { describe, expect, test } from "vitest";
import type { PreferencePair } from "./check.ts";
import { Engine } from "./engine.ts";
import { type Forest, ForestBuilder, nodeCount } from "./forest.ts";
import type { Completion, GenerationOptions } from "./generate.ts";
import type { ModelConfig, ModelSource, TensorSource } from "./model.ts";
import { deviceInfo } from "./native.ts";
import { changedModel, richConfig, slowConfig, someIds, tinyConfig } from "./testing/models.ts";

const sigmoid = { terms: [{ type: "sigmoid" as const, weight: 1 }], beta: 0.1 };

function random(config: ModelConfig, seed = 1): Promise<Engine> {
  return Engine.random(config, { device: "cpu", seed, std: 0.3 });
}

/** Two trees: depth 4, single-token nodes, siblings that share a last token, a scored root, nodes that are only context. */
function bush(vocabSize: number): Forest {
  const builder = new ForestBuilder();
  const ids = (count: number, seed: number) => someIds(count, vocabSize, seed);
  const root = builder.add(ids(7, 1));
  const left = builder.add(ids(1, 2), root);
  const right = builder.add(ids(6, 3), root);
  builder.add(ids(1, 4), left);
  const deep = builder.add(ids(4, 5), left, false);
  builder.add(ids(3, 6), deep);
  builder.add(ids(1, 7), deep);
  builder.add(ids(8, 8), right);
  const second = builder.add(ids(5, 9), -1, true);
  builder.add(ids(2, 10), second);
  return builder.build();
}

function path(forest: Forest, leaf: number): number[] {
  const nodes: number[] = [];
  for (let node = leaf; node >= 0; node = forest.nodeParent[node] as number) nodes.unshift(node);
  return nodes;
}

/** A node's path as a forest of its own, with only that node scored. */
function alone(forest: Forest, leaf: number): Forest {
  const builder = new ForestBuilder();
  let parent = -1;
  for (const node of path(forest, leaf)) {
    const tokens = forest.tokens.subarray(forest.nodeStart[node], forest.nodeStart[node + 1]);
    parent = builder.add(tokens, parent, node === leaf);
  }
  return builder.build();
}

async function gradients(engine: Engine): Promise<Float32Array[]> {
  return Promise.all(engine.parameters.map(({ name }) => engine.getGradient(name)));
}

async function weights(engine: Engine): Promise<Buffer> {
  return Buffer.concat(await Promise.all(engine.parameters.map(({ name }) => engine.getParameter(name))));
}

/** An engine's weights as they are now, as a model to load. */
async function modelOf(engine: Engine): Promise<ModelSource> {
  const sources: TensorSource[] = [];
  for await (const tensor of engine.tensors()) {
    sources.push({ ...tensor, file: "memory", read: () => Promise.resolve(tensor.bytes) });
  }
  return { config: engine.config, name: "memory", dtype: engine.dtype, tensors: () => sources };
}

function withValues(tensor: TensorSource, values: Float32Array): TensorSource {
  const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
  return { ...tensor, dtype: "f32", read: () => Promise.resolve(bytes) };
}

async function collect(completions: AsyncIterable<Completion>): Promise<Completion[]> {
  const all: Completion[] = [];
  for await (const completion of completions) all.push(completion);
  return all.sort((a, b) => a.prompt - b.prompt || a.sample - b.sample);
}

function pairForest(config: ModelConfig, count: number, length: number): { forest: Forest; pairs: PreferencePair[] } {
  const builder = new ForestBuilder();
  const pairs = Array.from({ length: count }, (_, i) => {
    const prompt = builder.share(someIds(length, config.vocabSize, i));
    return {
      chosen: builder.add(someIds(length, config.vocabSize, 100 + i), prompt),
      rejected: builder.add(someIds(length, config.vocabSize, 200 + i), prompt),
      referenceChosen: -3 * length,
      referenceRejected: -3.1 * length,
    };
  });
  return { forest: builder.build(), pairs };
}

describe.each([
  ["plain", tinyConfig],
  ["with biases, head norms, a window and a tied head", richConfig],
])("a model %s", (_, config) => {
  test("gives a forest the numbers of its paths run one by one, forward and backward", async () => {
    const forest = bush(config.vocabSize);
    using whole = await random(config);
    using apart = await random(config);
    const coefficients = Float32Array.from(forest.tokens, (_, i) => Math.sin(i + 1));
    const together = await whole.accumulate(forest, coefficients);
    expect(await whole.logProbs(forest)).toEqual(together);
    for (let node = 0; node < nodeCount(forest); node++) {
      if (forest.nodeScored[node] === 0) continue;
      const single = alone(forest, node);
      const mine = new Float32Array(single.tokens.length);
      const begin = forest.nodeStart[node] as number;
      const end = forest.nodeStart[node + 1] as number;
      mine.set(coefficients.subarray(begin, end), mine.length - (end - begin));
      const result = await apart.accumulate(single, mine);
      const tail = result.token.subarray(mine.length - (end - begin));
      for (const [i, value] of tail.entries())
        expect(Math.abs(value - (together.token[begin + i] as number))).toBeLessThan(1e-5);
      expect(Math.abs((result.node.at(-1) as number) - (together.node[node] as number))).toBeLessThan(1e-4);
    }
    const [one, other] = [await gradients(whole), await gradients(apart)];
    for (const [i, { name }] of whole.parameters.entries()) {
      const [a, b] = [one[i] as Float32Array, other[i] as Float32Array];
      const scale = Math.sqrt(b.reduce((sum, value) => sum + value * value, 0));
      const difference = Math.sqrt(a.reduce((sum, value, k) => sum + (value - (b[k] as number)) ** 2, 0));
      expect(difference / scale, name).toBeLessThan(1e-5);
    }
  });

  test("has the gradients that finite differences give", async () => {
    const forest = bush(config.vocabSize);
    using engine = await random(config);
    const sum = async () => (await engine.logProbs(forest)).node.reduce((a, b) => a + b, 0);
    await engine.accumulate(forest, new Float32Array(forest.tokens.length).fill(1));
    const all = await gradients(engine);
    const source = await modelOf(engine);
    for (const [index, { name }] of engine.parameters.entries()) {
      const gradient = all[index] as Float32Array;
      const norm = Math.sqrt(gradient.reduce((total, value) => total + value * value, 0));
      const original = new Float32Array((await engine.getParameter(name)).buffer);
      const step = 5e-3;
      const along = async (by: number) => {
        const moved = original.map((value, i) => value + (by * (gradient[i] as number)) / norm);
        await engine.setParameters(
          changedModel(source, (tensor) => (tensor.name === name ? withValues(tensor, moved) : tensor)),
        );
        return sum();
      };
      const slope = ((await along(step)) - (await along(-step))) / (2 * step);
      await along(0);
      expect(Math.abs(slope / norm - 1), name).toBeLessThan(1e-2);
    }
  });
});

describe("loading", () => {
  async function source(): Promise<ModelSource> {
    using engine = await random(tinyConfig);
    return await modelOf(engine);
  }
  const norm = "model.layers.1.input_layernorm.weight";

  test.each<[string, (tensor: TensorSource) => TensorSource | null, string]>([
    [
      "misses a tensor",
      (t) => (t.name === norm ? null : t),
      `The model lacks ${norm} (memory). Get the whole checkpoint`,
    ],
    [
      "has one too many",
      (t) => (t.name === norm ? { ...t, name: "lm_head.bias" } : t),
      "The tensor has no place in this model (memory, field lm_head.bias)",
    ],
    ["has one twice", (t) => (t.name === norm ? { ...t, name: "model.norm.weight" } : t), "The tensor is there twice"],
    [
      "has one of another shape",
      (t) => (t.name === norm ? { ...t, shape: [25] } : t),
      `The tensor has shape [25], but the model needs [24] (memory, field ${norm})`,
    ],
    [
      "has one of another type",
      (t) => (t.name === norm ? { ...t, dtype: "f16" as "f32" } : t),
      "The tensor has element type f16",
    ],
    [
      "is truncated",
      (t) => (t.name === norm ? { ...t, read: async () => new Uint8Array(90) } : t),
      `The tensor has 90 bytes instead of 96 (memory, field ${norm}). The file is truncated`,
    ],
    [
      "holds NaN",
      (t) => (t.name === norm ? withValues(t, new Float32Array(24).fill(Number.NaN)) : t),
      `The tensor holds NaN or infinity (memory, field ${norm})`,
    ],
    [
      "holds infinity",
      (t) => (t.name === norm ? withValues(t, new Float32Array(24).fill(Number.NEGATIVE_INFINITY)) : t),
      "The tensor holds NaN or infinity",
    ],
  ])("a model that %s names the tensor", async (_, change, message) => {
    await expect(Engine.load(changedModel(await source(), change), { device: "cpu" })).rejects.toThrow(message);
  });

  test("refuses another model's weights by the field that differs", async () => {
    using engine = await random(tinyConfig);
    const other = { ...(await source()), config: { ...tinyConfig, ropeTheta: 500_000 } };
    await expect(engine.setParameters(other)).rejects.toThrow("ropeTheta is 500000, but the engine holds 10000");
  });

  test("passes on what a tensor's file says, and can be aborted", async () => {
    const model = await source();
    const broken = changedModel(model, (t) => ({ ...t, read: () => Promise.reject(new Error("disk on fire")) }));
    await expect(Engine.load(broken, { device: "cpu" })).rejects.toThrow("disk on fire");
    const abort = new AbortController();
    const progress: number[] = [];
    const loading = Engine.load(model, {
      device: "cpu",
      signal: abort.signal,
      onProgress: (done) => {
        progress.push(done);
        abort.abort();
      },
    });
    await expect(loading).rejects.toMatchObject({ name: "AbortError" });
    expect(progress.length).toBeLessThan(5);
  });

  test("asks for a CUDA device that is not there by name", async () => {
    if (deviceInfo().cuda.devices.length > 0) {
      using engine = await Engine.random(tinyConfig, { device: "cuda" });
      expect(engine.device).toBe("cuda");
    } else {
      await expect(Engine.random(tinyConfig, { device: "cuda" })).rejects.toThrow('Use device "cpu", or "auto"');
    }
  });

  test("keeps f32 bits, rounds to bf16 once, and draws the same weights for the same seed", async () => {
    using first = await random(tinyConfig, 7);
    using again = await random(tinyConfig, 7);
    using other = await random(tinyConfig, 8);
    expect((await weights(first)).equals(await weights(again))).toBe(true);
    expect((await weights(first)).equals(await weights(other))).toBe(false);
    using rounded = await Engine.load(await modelOf(first), { device: "cpu", dtype: "bf16" });
    using reloaded = await Engine.load(await modelOf(rounded), { device: "cpu", dtype: "f32" });
    using back = await Engine.load(await modelOf(reloaded), { device: "cpu", dtype: "bf16" });
    expect((await weights(rounded)).equals(await weights(back))).toBe(true);
  });
});

describe("training", () => {
  test("a supervised step is the token mean, and a sum of calls with shared weights is the whole batch", async () => {
    const { forest } = pairForest(tinyConfig, 3, 5);
    using engine = await random(tinyConfig);
    const { node } = await engine.logProbs(forest);
    const step = await engine.supervisedStep(forest);
    expect(step.tokens).toBe(30);
    expect(step.loss).toBeCloseTo(-node.reduce((a, b) => a + b, 0) / 30, 6);
    const gradient = await engine.getGradient("model.norm.weight");
    await engine.zeroGradients();
    await engine.supervisedStep(forest, { weight: 1 / 60 });
    await engine.supervisedStep(forest, { weight: 1 / 60, checkpointing: true });
    const halves = await engine.getGradient("model.norm.weight");
    for (const [i, value] of gradient.entries()) expect(Math.abs(value - (halves[i] as number))).toBeLessThan(1e-6);
  });

  test("micro-batches with the batch's totals add up to the batch", async () => {
    const { forest, pairs } = pairForest(tinyConfig, 4, 6);
    const loss = { terms: [...sigmoid.terms, { type: "sft" as const, weight: 0.5 }], beta: 0.1 };
    using engine = await random(tinyConfig);
    const whole = await engine.preferenceStep(forest, pairs, loss);
    const gradient = await engine.getGradient("lm_head.weight");
    await engine.zeroGradients();
    let sum = 0;
    for (const half of [pairs.slice(0, 2), pairs.slice(2)]) {
      sum += (await engine.preferenceStep(forest, half, loss, { totalPairs: 4, totalChosenTokens: 24 })).loss;
    }
    expect(sum).toBeCloseTo(whole.loss, 5);
    const halves = await engine.getGradient("lm_head.weight");
    for (const [i, value] of gradient.entries()) expect(Math.abs(value - (halves[i] as number))).toBeLessThan(1e-5);
    for (const pair of whole.pairs) {
      expect(pair.chosenReward).toBeCloseTo(0.1 * (pair.chosenLogProb + 18), 8);
      expect([pair.chosenLength, pair.rejectedLength]).toEqual([6, 6]);
    }
  });

  test.each(["f32", "bf16"] as const)("runs twice to the same bits in %s", async (dtype) => {
    const { forest, pairs } = pairForest(richConfig, 3, 9);
    const run = async () => {
      using engine = await Engine.random(richConfig, { device: "cpu", dtype, seed: 3, std: 0.3 });
      const norms: number[] = [];
      for (let step = 0; step < 3; step++) {
        await engine.preferenceStep(forest, pairs, sigmoid);
        norms.push(
          (await engine.optimizerStep({ learningRate: 1e-2, weightDecay: 0.1, maxGradNorm: 1, seed: step })).gradNorm,
        );
      }
      return { norms, bytes: await weights(engine) };
    };
    const [first, second] = [await run(), await run()];
    expect(second.norms).toEqual(first.norms);
    expect(second.bytes.equals(first.bytes)).toBe(true);
  });

  test("resumes bit for bit from weights and optimizer state", async () => {
    const { forest, pairs } = pairForest(tinyConfig, 2, 6);
    const step = async (engine: Engine) => {
      await engine.preferenceStep(forest, pairs, sigmoid);
      await engine.optimizerStep({ learningRate: 1e-2, weightDecay: 0.01 });
    };
    using straight = await random(tinyConfig);
    await step(straight);
    const model = await modelOf(straight);
    const state = await straight.optimizerState();
    expect(state.steps).toBe(1);
    await step(straight);
    using resumed = await Engine.load(model, { device: "cpu" });
    await resumed.setOptimizerState(state);
    await step(resumed);
    expect((await weights(resumed)).equals(await weights(straight))).toBe(true);
    await expect(resumed.setOptimizerState({ steps: 1, parameters: [] })).rejects.toThrow(
      "The optimizer state lacks model.embed_tokens.weight",
    );
  });

  test("restores a snapshot's bits, and says when it is gone or another engine's", async () => {
    const { forest } = pairForest(tinyConfig, 2, 6);
    using engine = await random(tinyConfig);
    using other = await random(tinyConfig);
    const before = await weights(engine);
    const snapshot = await engine.snapshot();
    expect(snapshot.bytes).toBe(before.length);
    await engine.supervisedStep(forest);
    await engine.optimizerStep({ learningRate: 0.1 });
    expect((await weights(engine)).equals(before)).toBe(false);
    await expect(other.restore(snapshot)).rejects.toThrow("another engine");
    await engine.restore(snapshot);
    snapshot.dispose();
    snapshot.dispose();
    expect((await weights(engine)).equals(before)).toBe(true);
    await expect(engine.restore(snapshot)).rejects.toThrow("The snapshot is disposed");
  });

  test("refuses a gradient that is not finite and leaves the weights alone", async () => {
    const { forest } = pairForest(tinyConfig, 2, 6);
    using engine = await random(tinyConfig);
    const before = await weights(engine);
    await engine.accumulate(forest, new Float32Array(forest.tokens.length).fill(3e38));
    await expect(engine.optimizerStep({ learningRate: 0.1 })).rejects.toThrow("the gradient norm is not finite");
    expect((await weights(engine)).equals(before)).toBe(true);
    expect((await engine.getGradient("lm_head.weight")).every((value) => value === 0)).toBe(true);
  });

  test("gives hidden states that the head turns into the log-probs", async () => {
    const builder = new ForestBuilder();
    const prompt = builder.add([3, 4, 5]);
    const next = builder.add([17], prompt);
    const forest = builder.build();
    using engine = await random(tinyConfig);
    const { node } = await engine.logProbs(forest);
    const states = await engine.hiddenStates(forest, [next, prompt]);
    expect(states.length).toBe(2 * tinyConfig.hiddenSize);
    const head = new Float32Array((await engine.getParameter("lm_head.weight")).buffer);
    const state = states.subarray(tinyConfig.hiddenSize);
    const logits = Array.from({ length: tinyConfig.vocabSize }, (_, token) =>
      state.reduce((sum, value, i) => sum + value * (head[token * tinyConfig.hiddenSize + i] as number), 0),
    );
    const normalizer = Math.log(logits.reduce((sum, logit) => sum + Math.exp(logit), 0));
    expect((logits[17] as number) - normalizer).toBeCloseTo(node[next] as number, 4);
  });
});

describe("cancelling", () => {
  test("rejects with the signal's AbortError and leaves zero gradients", async () => {
    const { forest, pairs } = pairForest(slowConfig, 4, 200);
    using engine = await Engine.random(slowConfig, { device: "cpu" });
    await engine.supervisedStep(pairForest(slowConfig, 1, 4).forest);
    const abort = new AbortController();
    const running = engine.preferenceStep(forest, pairs, sigmoid, { signal: abort.signal });
    setTimeout(() => abort.abort(), 20);
    await expect(running).rejects.toMatchObject({ name: "AbortError" });
    for (const gradient of await gradients(engine)) expect(gradient.every((value) => value === 0)).toBe(true);
    expect((await engine.supervisedStep(pairForest(slowConfig, 1, 4).forest)).tokens).toBe(8);
  });

  test("wraps any other reason as the cause of an AbortError", async () => {
    using engine = await random(tinyConfig);
    const { forest } = pairForest(tinyConfig, 1, 4);
    await expect(engine.logProbs(forest, { signal: AbortSignal.abort("enough") })).rejects.toMatchObject({
      name: "AbortError",
      cause: "enough",
    });
  });

  test("stops a generation between its steps", async () => {
    using engine = await random(tinyConfig);
    const abort = new AbortController();
    const generation = engine.generate([{ ids: [1] }], { maxNewTokens: 60, n: 20, maxRows: 1, signal: abort.signal });
    await generation.next();
    abort.abort();
    await expect(collect(generation)).rejects.toMatchObject({ name: "AbortError" });
    await engine.zeroGradients(); // after the generation's end, which nobody waits for
    expect(engine.memory().cache).toBe(0);
  });
});

describe("calls", () => {
  test("run in the order they were made, whole operations included", async () => {
    using engine = await random(tinyConfig, 1);
    using other = await random(tinyConfig, 2);
    const { forest } = pairForest(tinyConfig, 1, 4);
    const [mine, theirs] = [await engine.logProbs(forest), await other.logProbs(forest)];
    const model = await modelOf(other);
    const before = engine.logProbs(forest);
    const change = engine.setParameters(model);
    const after = engine.logProbs(forest);
    expect(await before).toEqual(mine);
    await change;
    expect(await after).toEqual(theirs);
  });

  test("after dispose() are refused, and dispose() may be called again", async () => {
    const engine = await random(tinyConfig);
    const { forest } = pairForest(tinyConfig, 1, 4);
    engine.dispose();
    engine.dispose();
    await expect(engine.logProbs(forest)).rejects.toThrow("The engine is disposed. Load a new engine");
    await expect(engine.getParameter("model.norm.weight")).rejects.toThrow("The engine is disposed");
    await expect(collect(engine.generate([{ ids: [1] }], { maxNewTokens: 1 }))).rejects.toThrow(
      "The engine is disposed",
    );
    expect(() => engine.memory()).toThrow("The engine is disposed");
  });

  test("in flight at dispose() are rejected, the running and the waiting ones", async () => {
    const engine = await Engine.random(slowConfig, { device: "cpu" });
    const { forest } = pairForest(slowConfig, 4, 200);
    const running = engine.logProbs(forest);
    const waiting = engine.logProbs(forest);
    await new Promise((resolve) => setTimeout(resolve, 20));
    engine.dispose();
    const [first, second] = await Promise.allSettled([running, waiting]);
    expect(first).toMatchObject({ reason: { message: expect.stringContaining("disposed while a call was running") } });
    expect(second).toMatchObject({ reason: { message: expect.stringContaining("disposed before this call began") } });
  });

  test("report the memory by use and give the training state back", async () => {
    using engine = await random(tinyConfig);
    const size = (await weights(engine)).length;
    expect(engine.memory().weights).toBeGreaterThanOrEqual(size);
    expect(engine.memory().gradients).toBe(0);
    await engine.supervisedStep(pairForest(tinyConfig, 1, 4).forest);
    await engine.optimizerStep({ learningRate: 0.1 });
    const { gradients: held, optimizer, workspace, peak } = engine.memory();
    expect(held).toBeGreaterThanOrEqual(size);
    expect(optimizer).toBeGreaterThanOrEqual(2 * size);
    expect(peak).toBeGreaterThanOrEqual(4 * size);
    await engine.resetOptimizer();
    expect(engine.memory()).toMatchObject({ gradients: 0, optimizer: 0 });
    expect(engine.memory().workspace).toBeLessThan(workspace / 10);
  });

  test("with unknown names or nodes are refused", async () => {
    using engine = await random(tinyConfig);
    await expect(engine.getGradient("lm_head.bias")).rejects.toThrow("The model has no parameter lm_head.bias");
    await expect(engine.hiddenStates(bush(61), [99])).rejects.toThrow("nodes[0] is node 99");
    await expect(engine.optimizerStep({ learningRate: -1 })).rejects.toThrow("learningRate is -1");
  });
});

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
    expect(shared.map(({ ids }) => ids)).toEqual(apart.map(({ ids }) => ids));
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
    await expect(collect(generation)).rejects.toThrow("the weights changed while a generation was running");
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
