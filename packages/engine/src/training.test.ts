import { describe, expect, test } from "vitest";
import { Engine } from "./engine.ts";
import type { ParameterMoments } from "./engine-types.ts";
import { ForestBuilder } from "./forest.ts";
import { modelOf, pairForest, random, sigmoid, weights } from "./testing/engines.ts";
import { richConfig, tinyConfig } from "./testing/models.ts";

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

  test.each(["f32", "bf16", "8bit"] as const)("resumes bit for bit with moments in %s", async (moments) => {
    const config = { ...tinyConfig, vocabSize: 300 };
    const { forest, pairs } = pairForest(config, 2, 6);
    const step = async (engine: Engine) => {
      await engine.preferenceStep(forest, pairs, sigmoid);
      await engine.optimizerStep({ learningRate: 1e-2, weightDecay: 0.01, seed: 2 });
    };
    using straight = await Engine.random(config, { device: "cpu", seed: 1, std: 0.3, moments });
    for (let i = 0; i < 3; i++) await step(straight);
    const model = await modelOf(straight);
    const state = await Array.fromAsync(straight.moments());
    expect((state[0]?.firstScales ?? []).length).toBe(moments === "8bit" ? Math.ceil((300 * 24) / 256) : 0);
    using resumed = await Engine.load(model, { device: "cpu", moments });
    await resumed.setOptimizerState(straight.optimizerSteps, state);
    for (const engine of [straight, resumed]) await step(engine);
    expect((await weights(resumed)).equals(await weights(straight))).toBe(true);
    const parameters = straight.parameters.reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0);
    // Small tensors stay in f32, and memory is counted in blocks.
    const most = { f32: 8, bf16: 4, "8bit": 8 }[moments] * parameters + 128 * 1024;
    expect(straight.memory().optimizer).toBeLessThan(most);
  });

  test("refuses moments and quantisations that there are not", async () => {
    const load = (options: object) => Engine.random(tinyConfig, { device: "cpu", ...options });
    await expect(load({ moments: "fp8" })).rejects.toThrow("There are no moments in fp8");
    await expect(load({ quantize: "int4" })).rejects.toThrow("There is no quantisation int4");
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
    const moments = await Array.fromAsync(straight.moments());
    expect(straight.optimizerSteps).toBe(1);
    await step(straight);
    using resumed = await Engine.load(model, { device: "cpu" });
    await resumed.setOptimizerState(1, moments);
    await step(resumed);
    expect((await weights(resumed)).equals(await weights(straight))).toBe(true);
  });

  test("takes no part of an optimizer state that is not whole", async () => {
    using engine = await random(tinyConfig);
    const { forest } = pairForest(tinyConfig, 2, 6);
    await engine.supervisedStep(forest);
    await engine.optimizerStep({ learningRate: 1e-2 });
    const moments = await Array.fromAsync(engine.moments());
    const [first, ...others] = moments as [ParameterMoments, ...ParameterMoments[]];
    const bad: [string, ParameterMoments[]][] = [
      ["The optimizer state lacks model.embed_tokens.weight", others],
      ["has model.embed_tokens.weight, which is there twice", [first, ...moments]],
      ["the wrong size for model.embed_tokens.weight", [{ ...first, second: new Float32Array(3) }, ...others]],
    ];
    for (const [message, state] of bad) {
      await expect(engine.setOptimizerState(1, state)).rejects.toThrow(message);
      expect(engine.optimizerSteps).toBe(0);
      for await (const { first, second } of engine.moments()) {
        expect(first.every((value) => value === 0) && second.every((value) => value === 0)).toBe(true);
      }
    }
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
