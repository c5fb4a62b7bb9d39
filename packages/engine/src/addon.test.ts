import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type {
  NativeAdapterSpec,
  NativeEngine,
  NativeForest,
  NativeGenerationRequest,
  NativePreferenceStep,
} from "./addon.ts";
import { ForestBuilder } from "./forest.ts";
import { parameterShapes, rotaryFrequencies } from "./model.ts";
import { addon } from "./native.ts";
import { tinyConfig } from "./testing/models.ts";

// Calls that the TypeScript side never makes: the addon must refuse them instead of reading past an array.

const shape = {
  ...tinyConfig,
  windows: Int32Array.from(tinyConfig.windows),
  rotaryFrequencies: rotaryFrequencies(tinyConfig),
};
const options = { device: "cpu", dtype: "f32", threads: 1, moments: "f32", quantized: null } as const;
const invalid = { code: "invalid-argument" };
const [one, none] = [new Float32Array(1), new Float32Array(0)];

function forest(change: Partial<NativeForest> = {}): NativeForest {
  const builder = new ForestBuilder();
  builder.add([4, 5], builder.add([1, 2, 3]));
  return { ...builder.build(), rootAdapter: new Int32Array(0), ...change };
}

const step: NativePreferenceStep = {
  forest: forest(),
  pairs: Int32Array.from([1, 1]),
  reference: Float64Array.from([0, 0]),
  loss: { types: ["sigmoid"], weights: Float64Array.from([1]), beta: 0.1, labelSmoothing: 0, discopopTau: 0.05 },
  totalPairs: 1,
  totalChosenTokens: 2,
  checkpointing: false,
};

const adapter: NativeAdapterSpec = {
  parameters: Int32Array.from([2]),
  ranks: Int32Array.from([3]),
  scales: Float32Array.from([1]),
  dropout: 0,
  seed: 0,
};

const request: NativeGenerationRequest = {
  forest: forest(),
  leaves: Int32Array.from([1]),
  samples: Int32Array.from([2]),
  promptKeys: Float64Array.from([0]),
  seeds: Float64Array.from([0]),
  options: {
    temperature: 1,
    topK: 0,
    topP: 1,
    maxNewTokens: 8,
    endTokens: new Int32Array(0),
    maxRows: 2,
    maxCacheTokens: 1024,
  },
};

/** What a call throws or rejects with. */
async function failure(call: () => unknown): Promise<unknown> {
  try {
    await call();
  } catch (error) {
    return error;
  }
  return undefined;
}

describe("an engine of the addon", () => {
  let engine: NativeEngine;

  beforeAll(async () => {
    engine = new (addon().Engine)(shape, options);
    await engine.ready();
    for (const [index, { shape: sizes }] of parameterShapes(tinyConfig).entries()) {
      const values = new Float32Array(sizes.reduce((a, b) => a * b, 1)).fill(0.01);
      await engine.setParameter(index, "f32", new Uint8Array(values.buffer));
    }
  });

  afterAll(() => engine.dispose());

  test.each<[string, Partial<NativeForest>]>([
    ["tokens of another kind", { tokens: new Float64Array(5) as unknown as Int32Array }],
    ["an id past the vocabulary", { tokens: Int32Array.from([1, 2, 61, 4, 5]) }],
    ["a negative id", { tokens: Int32Array.from([1, 2, -1, 4, 5]) }],
    ["starts past the tokens", { nodeStart: Int32Array.from([0, 3, 9]) }],
    ["starts that go back", { nodeStart: Int32Array.from([0, 9, 5]) }],
    ["too few starts", { nodeStart: Int32Array.from([0, 5]) }],
    ["too few marks", { nodeScored: new Uint8Array(1) }],
    ["a parent that follows", { nodeParent: Int32Array.from([1, 0]) }],
    ["no nodes", { nodeParent: new Int32Array(0), nodeStart: new Int32Array(1), nodeScored: new Uint8Array(0) }],
  ])("refuses a forest with %s", async (_, change) => {
    expect(await failure(() => engine.logProbs(forest(change), 0, null))).toMatchObject(invalid);
    expect(await failure(() => engine.startGeneration({ ...request, forest: forest(change) }, null))).toMatchObject(
      invalid,
    );
  });

  test.each<[string, (engine: NativeEngine) => unknown]>([
    ["a parameter that is not there", (e) => e.getParameter(999)],
    ["a negative parameter", (e) => e.getGradient(-1)],
    ["too few bytes", (e) => e.setParameter(0, "f32", new Uint8Array(3))],
    ["an unknown element type", (e) => e.setParameter(0, "f16" as "f32", new Uint8Array(3))],
    [
      "moments of another size",
      (e) => e.setOptimizerState(0, { first: one, second: one, firstScales: none, secondScales: none }),
    ],
    ["a parameter of an adapter that is not there", (e) => e.getParameter(0, 3)],
    ["an adapter that is not there", (e) => e.activateAdapter(3)],
    ["an adapter of a norm", (e) => e.addAdapter({ ...adapter, parameters: Int32Array.from([1]) })],
    ["an adapter of two ranks", (e) => e.addAdapter({ ...adapter, ranks: new Int32Array(2) })],
    ["too many adapters", (e) => e.logProbs(forest({ rootAdapter: Int32Array.from([-1, -1]) }), 0, null)],
    ["trees of an unknown adapter", (e) => e.logProbs(forest({ rootAdapter: Int32Array.from([2]) }), 0, null)],
    ["too few coefficients", (e) => e.accumulate(forest(), new Float32Array(4), false, null)],
    ["a node that is not there", (e) => e.hiddenStates(forest(), Int32Array.from([2]), null)],
    ["a pair that is not there", (e) => e.preferenceStep({ ...step, pairs: Int32Array.from([1, 2]) }, null)],
    ["half a pair", (e) => e.preferenceStep({ ...step, pairs: Int32Array.from([1]) }, null)],
    ["too few reference sums", (e) => e.preferenceStep({ ...step, reference: new Float64Array(1) }, null)],
    ["an unknown loss", (e) => e.preferenceStep({ ...step, loss: { ...step.loss, types: ["dpo"] } }, null)],
    ["no samples", (e) => e.startGeneration({ ...request, samples: new Int32Array(1) }, null)],
    ["a key below zero", (e) => e.startGeneration({ ...request, promptKeys: Float64Array.from([-1]) }, null)],
    ["something else as Cancel", (e) => e.logProbs(forest(), 0, {} as never)],
    ["something else as Snapshot", (e) => e.restore(new (addon().Cancel)() as never)],
    ["nothing at all", (e) => e.optimizerStep(undefined as never)],
  ])("refuses %s", async (_, call) => {
    expect(await failure(() => call(engine))).toMatchObject(invalid);
    expect((await engine.logProbs(forest(), 0, null)).nodeLogProbs.length).toBe(2);
  });

  test("ends a generation's handle once: dispose() twice, a step after it, rows that are not there", async () => {
    const generation = await engine.startGeneration(request, null);
    expect((await generation.step(2, null)).tokens.length).toBe(4);
    generation.finishRows(Int32Array.from([17]));
    expect(await failure(() => generation.step(1, null))).toMatchObject(invalid);
    generation.dispose();
    generation.dispose();
    expect(await failure(() => generation.step(1, null))).toMatchObject({
      ...invalid,
      message: "generate: the generation is disposed",
    });
  });

  test("lets handles outlive it", async () => {
    const other = new (addon().Engine)(shape, options);
    expect(await failure(() => other.logProbs(forest(), 0, null))).toMatchObject({ code: "failed" }); // before ready()
    await other.ready();
    expect(await failure(() => other.logProbs(forest(), 0, null))).toMatchObject(invalid); // before its weights
    const snapshot = await other.snapshot();
    other.dispose();
    snapshot.dispose();
    expect(await failure(() => other.restore(snapshot))).toMatchObject({ code: "disposed" });
    expect(await failure(() => other.ready())).toMatchObject({
      code: "disposed",
      message: "Engine: the engine is disposed",
    });
    expect(other.memory().weights).toBe(0);
  });

  test.each([
    ["no layers", { layers: 0 }],
    ["heads that do not divide", { kvHeads: 3 }],
    ["too few windows", { windows: new Int32Array(1) }],
    ["too few frequencies", { rotaryFrequencies: new Float32Array(2) }],
  ])("is not made with %s", (_, change) => {
    expect(() => new (addon().Engine)({ ...shape, ...change }, options)).toThrow(TypeError);
  });
});
