import { describe, expect, test } from "vitest";
import { Engine } from "./engine.ts";
import { bush, collect, gradients, modelOf, pairForest, random, sigmoid, weights } from "./testing/engines.ts";
import { slowConfig, tinyConfig } from "./testing/models.ts";

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
