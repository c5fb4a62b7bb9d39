import {
  type AdapterConfig,
  Engine,
  type Forest,
  ForestBuilder,
  type ModelConfig,
  type MomentsFormat,
} from "@tempora/engine";
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

/** Wide enough that what is held is matrices, with head norms, and heads that share keys. */
const small: ModelConfig = {
  ...world,
  vocabSize: 6000,
  hiddenSize: 192,
  intermediateSize: 512,
  layers: 4,
  heads: 6,
  kvHeads: 2,
  qkNorm: true,
  windows: new Array(4).fill(0),
};
const trees = 32;

function pairsOf(config: ModelConfig) {
  const builder = new ForestBuilder();
  const ids = (count: number) => Array.from({ length: count }, (_, k) => k % config.vocabSize);
  const pairs = Array.from({ length: trees }, () => {
    const prompt = builder.add(ids(16), -1, false);
    const [chosen, rejected] = [builder.add(ids(24), prompt, true), builder.add(ids(24), prompt, true)];
    return { chosen, rejected, referenceChosen: 0, referenceRejected: 0 };
  });
  return { forest: builder.build(), pairs };
}

function stepOf({ tokens }: Forest, checkpointing: boolean) {
  return { tokens: tokens.length, checkpointing, scoredTokens: trees * 48, treeTokens: 48 };
}

/** What the engine holds at its peak, in two steps over `trees` pairs and the update between them, and what was estimated. */
async function measured(plan: MemoryPlan, checkpointing: boolean) {
  const { config, dtype, quantize, moments, adapter } = plan;
  using engine = await Engine.random(config, { device: "cpu", dtype, quantize, moments, threads: 1 });
  if (adapter != null) {
    await engine.adapters.add("a", adapter, { seed: 0 });
    await engine.adapters.activate("a");
  }
  const { forest, pairs } = pairsOf(config);
  const loss = { terms: [{ type: "sigmoid" as const, weight: 1 }], beta: 0.1 };
  await engine.preferenceStep(forest, pairs, loss, { checkpointing });
  await engine.optimizerStep({ learningRate: 1e-6 });
  await engine.preferenceStep(forest, pairs, loss, { checkpointing });
  const { weights, gradients, optimizer, peak } = engine.memory();
  const estimate = trainingMemory(plan, stepOf(forest, checkpointing));
  return { held: { weights, gradients, optimizer, peak }, estimate };
}

const lora: AdapterConfig = { rank: 8, alpha: 16 };
const cases: [string, Omit<MemoryPlan, "config">][] = [
  ["the whole model", { dtype: "f32" }],
  ["the whole model in bf16 with bf16 moments", { dtype: "bf16", moments: "bf16" }],
  ["the whole model with 8-bit moments", { dtype: "f32", moments: "8bit" satisfies MomentsFormat }],
  ["an adapter", { dtype: "f32", adapter: lora }],
  [
    "an adapter of some modules with dropout",
    { dtype: "f32", adapter: { ...lora, targets: ["q_proj", "down_proj"], dropout: 0.1 } },
  ],
  ["an adapter over bf16 weights", { dtype: "bf16", adapter: lora }],
  ["an adapter over four-bit weights", { dtype: "bf16", adapter: lora, quantize: "nf4" }],
];

it.each(cases)("training of %s takes what was counted", async (_, plan) => {
  for (const checkpointing of [false, true]) {
    const { held, estimate } = await measured({ config: small, threads: 1, ...plan }, checkpointing);
    for (const use of ["weights", "gradients", "optimizer"] as const) {
      expect(Math.abs(estimate[use] / held[use] - 1), use).toBeLessThan(0.01);
    }
    const { weights, gradients, optimizer, workspace } = estimate;
    expect(Math.abs((weights + gradients + optimizer + workspace) / held.peak - 1)).toBeLessThan(0.02);
  }
});

it.each<[string, AdapterConfig | null]>([
  ["the whole model", null],
  ["an adapter beside another", lora],
])("training of %s after a generation takes what was counted", async (_, adapter) => {
  const { config, forest, pairs } = { config: small, ...pairsOf(small) };
  using engine = await Engine.random(config, { device: "cpu", threads: 1 });
  for (const name of adapter === null ? [] : ["b", "a"]) {
    await engine.adapters.add(name, adapter as AdapterConfig, { seed: 0 });
    await engine.adapters.activate(name);
    for await (const one of engine.generate([{ ids: [1, 2, 3] }], { maxNewTokens: 4 })) expect(one).toBeDefined();
  }
  if (adapter === null) {
    for await (const one of engine.generate([{ ids: [1, 2, 3] }], { maxNewTokens: 4 })) expect(one).toBeDefined();
  }
  await engine.preferenceStep(forest, pairs, { terms: [{ type: "sigmoid", weight: 1 }], beta: 0.1 });
  await engine.optimizerStep({ learningRate: 1e-6 });
  const plan: MemoryPlan = { config, dtype: "f32", adapter, packed: true, adaptersBeside: 1 };
  const { weights, gradients, optimizer, workspace } = trainingMemory(plan, stepOf(forest, false));
  expect(Math.abs((weights + gradients + optimizer + workspace) / engine.memory().peak - 1)).toBeLessThan(0.05);
});

it("counts the cache of a generation by layers, heads and tokens", () => {
  const plan = { config: large, dtype: "bf16" as const };
  const memory = generationMemory(plan, { cacheTokens: 1024, rows: 1, device: "cuda" });
  expect(memory.cache).toBe(2 * 32 * 1024 * 8 * 128 * 2);
  const onCpu = generationMemory(plan, { cacheTokens: 1024, rows: 1, device: "cpu" });
  // All once more but the embedding, which is not multiplied by, and the norms.
  const looked = 2 * 128256 * 4096;
  expect(onCpu.weights / (2 * memory.weights - looked)).toBeCloseTo(1, 2);
});

it.each([...cases, ["four-bit weights", { dtype: "f32", quantize: "nf4" }] as (typeof cases)[number]])(
  "generation with %s holds what was counted",
  async (_, { dtype, quantize, adapter }) => {
    using engine = await Engine.random(small, { device: "cpu", dtype, quantize, threads: 1 });
    if (adapter != null) {
      await engine.adapters.add("a", adapter, { seed: 0 });
      await engine.adapters.activate("a");
    }
    const [rows, prompt, maxNewTokens] = [64, 64, 16];
    const cacheTokens = rows * (prompt + maxNewTokens);
    const prompts = Array.from({ length: rows }, (_, row) => ({ ids: new Array(prompt).fill(row) }));
    const options = { maxNewTokens, maxRows: rows, maxCacheTokens: cacheTokens };
    for await (const completion of engine.generate(prompts, options)) expect(completion).toBeDefined();
    const { weights, peak } = engine.memory();
    const estimate = generationMemory(
      { config: small, dtype, quantize, adapter },
      { cacheTokens, rows, device: "cpu" },
    );
    expect(Math.abs(estimate.weights / weights - 1)).toBeLessThan(0.01);
    expect(Math.abs((estimate.weights + estimate.cache + estimate.workspace) / peak - 1)).toBeLessThan(0.05);
  },
);

it("counts what is read beside the weights where training takes less, and a parameter's moments while they are saved", () => {
  const plan = { config: large, dtype: "bf16" as const, quantize: "nf4" as const, adapter: { rank: 8, alpha: 16 } };
  const step = { tokens: 64, checkpointing: true };
  const { weights, files, gradients, optimizer, workspace } = trainingMemory(plan, step);
  // An embedding and a head of 1002 MiB each, which lie there in bf16, too.
  const held = weights + gradients + optimizer + workspace + files;
  const inBlocks = 32 * (2 * 4096 + 2 * 1024 + 3 * 14336) * 4096;
  expect(held / (0.516 * inBlocks + 4 * 128256 * 4096 * 2)).toBeCloseTo(1, 1);
  const whole = trainingMemory({ config: large, dtype: "bf16" }, step);
  expect(whole.files).toBe(8 * 128256 * 4096);
});

it("counts what the command holds already, or what it will have read", () => {
  const program = (plan: Partial<MemoryPlan>) =>
    trainingMemory({ config: world, dtype: "f32", ...plan }, { tokens: 64, checkpointing: false }).program;
  const bare = program({});
  expect(program({ resident: 300 * 2 ** 20 }) - program({ resident: 200 * 2 ** 20 })).toBe(100 * 2 ** 20);
  expect(program({ config: large }) - bare).toBe(700 * (128256 - world.vocabSize));
  expect(program({ examples: { rows: 1000, tokens: 30_000 } }) - bare).toBe(1000 * 1550 + 30_000 * 16);
});

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
