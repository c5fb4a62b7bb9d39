import { describe, expect, test } from "vitest";
import { nodeCount } from "./forest.ts";
import { alone, bush, gradients, modelOf, random, withValues } from "./testing/engines.ts";
import { changedModel, richConfig, tinyConfig } from "./testing/models.ts";

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
