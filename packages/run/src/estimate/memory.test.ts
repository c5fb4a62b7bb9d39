import { type AdapterConfig, Engine, ForestBuilder, type ModelConfig, type MomentsFormat } from "@tempora/engine";
import { createWorld } from "@tempora/world";
import { expect, it } from "vitest";
import { generationMemory, lighterTrainings, type MemoryPlan, requireMemory, trainingMemory } from "./memory.ts";

const world: ModelConfig = createWorld({ seed: 0 }).modelConfig();
/** An 8B model as Llama 3.1. */
const large: ModelConfig = {
  ...world,
  vocabSize: 128256,
  hiddenSize: 4096,
  intermediateSize: 14336,
  layers: 32,
  heads: 32,
  kvHeads: 8,
  headDim: 128,
  tiedHead: false,
  windows: new Array(32).fill(0),
};
const GiB = 2 ** 30;

/** What the engine holds after a step over `trees` pairs, and what was estimated. */
async function measured(plan: MemoryPlan, checkpointing: boolean) {
  const { config, dtype, quantize, moments, adapter } = plan;
  using engine = await Engine.random(config, { device: "cpu", dtype, quantize, moments, threads: 1 });
  if (adapter != null) {
    await engine.adapters.add("a", adapter, { seed: 0 });
    await engine.adapters.activate("a");
  }
  const builder = new ForestBuilder();
  const ids = (count: number) => Array.from({ length: count }, (_, k) => k % config.vocabSize);
  const pairs = Array.from({ length: 40 }, () => {
    const prompt = builder.add(ids(16), -1, false);
    const [chosen, rejected] = [builder.add(ids(24), prompt, true), builder.add(ids(24), prompt, true)];
    return { chosen, rejected, referenceChosen: 0, referenceRejected: 0 };
  });
  const forest = builder.build();
  await engine.preferenceStep(forest, pairs, { terms: [{ type: "sigmoid", weight: 1 }], beta: 0.1 }, { checkpointing });
  await engine.optimizerStep({ learningRate: 1e-6 });
  const step = { tokens: forest.tokens.length, checkpointing, scoredTokens: 40 * 48, treeTokens: 48 };
  return { held: engine.memory(), estimate: trainingMemory(plan, step) };
}

const lora: AdapterConfig = { rank: 8, alpha: 16 };
const cases: [string, Omit<MemoryPlan, "config">][] = [
  ["the whole model", { dtype: "f32" }],
  ["the whole model in bf16 with bf16 moments", { dtype: "bf16", moments: "bf16" }],
  ["the whole model with 8-bit moments", { dtype: "f32", moments: "8bit" satisfies MomentsFormat }],
  ["an adapter", { dtype: "f32", adapter: lora }],
  ["an adapter over four-bit weights", { dtype: "bf16", adapter: lora, quantize: "nf4" }],
];

it.each(cases)("training of %s takes what was counted", async (_, plan) => {
  for (const checkpointing of [false, true]) {
    const { held, estimate } = await measured({ config: world, ...plan }, checkpointing);
    for (const use of ["weights", "gradients", "optimizer"] as const) {
      expect(Math.abs(estimate[use] / held[use] - 1), use).toBeLessThan(0.03);
    }
    // Chunks of 8 MiB are not filled by so small a model; the operations' own scratch comes on top.
    expect(Math.abs(estimate.workspace - held.workspace)).toBeLessThan(20 * 2 ** 20);
  }
});

it("counts the cache of a generation by layers, heads and tokens", () => {
  const plan = { config: large, dtype: "bf16" as const };
  const memory = generationMemory(plan, { cacheTokens: 1000, rows: 1, device: "cuda" });
  expect(memory.cache).toBe(2 * 32 * 1000 * 8 * 128 * 2);
  const onCpu = generationMemory(plan, { cacheTokens: 1000, rows: 1, device: "cpu" });
  // All once more but the embedding, which is not multiplied by, and the norms.
  const looked = 2 * 128256 * 4096;
  expect(onCpu.weights / (2 * memory.weights - looked)).toBeCloseTo(1, 2);
});

it.each([...cases, ["four-bit weights", { dtype: "f32", quantize: "nf4" }] as (typeof cases)[number]])(
  "generation with %s holds what was counted",
  async (_, { dtype, quantize, adapter }) => {
    using engine = await Engine.random(world, { device: "cpu", dtype, quantize, threads: 1 });
    if (adapter != null) {
      await engine.adapters.add("a", adapter, { seed: 0 });
      await engine.adapters.activate("a");
    }
    const options = { maxNewTokens: 4, maxRows: 2, maxCacheTokens: 64 };
    for await (const completion of engine.generate([{ ids: [1, 2, 3] }], options)) expect(completion).toBeDefined();
    const shape = { cacheTokens: 64, rows: 2, device: "cpu" as const };
    const estimate = generationMemory({ config: world, dtype, quantize, adapter }, shape);
    expect(Math.abs(estimate.weights / engine.memory().weights - 1)).toBeLessThan(0.03);
  },
);

it("refuses what the machine cannot hold, with what it can", () => {
  const plan = { config: large, dtype: "bf16" as const };
  const step = { tokens: 8192, checkpointing: false };
  const needed = trainingMemory(plan, step);
  // 8.03 G parameters: 2 bytes, 4 of gradients and 8 of moments each.
  expect(needed.weights + needed.gradients + needed.optimizer).toBeGreaterThan(14 * 8.03e9);
  const refuse = (available: number) => () =>
    requireMemory("The training", needed, available, lighterTrainings(plan, step));
  expect(refuse(64 * GiB)).toThrow(/^The training needs about 1\d\d GiB of memory, the machine has 64 GiB/);
  expect(refuse(64 * GiB)).toThrow("With --optimizer adamw_8bit");
  expect(refuse(12 * GiB)).toThrow("--quantize nf4 --lora-rank 16");
  expect(refuse(2 * GiB)).toThrow("Take a smaller model");
  expect(refuse(needed.total)).not.toThrow();
});
