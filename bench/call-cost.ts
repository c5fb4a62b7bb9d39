/** What a call from TypeScript costs beside the work that it starts. Runs by itself too: `bun bench/call-cost.ts`. */
import { callRoundTrip, Engine, ForestBuilder, type ModelConfig } from "@tempora/engine";
import type { BenchRow } from "./row.ts";

/** So small that a step's arithmetic is a few microseconds: what remains is the way there and back. */
const smallest: ModelConfig = {
  family: "llama",
  vocabSize: 32,
  hiddenSize: 16,
  intermediateSize: 16,
  layers: 1,
  heads: 1,
  kvHeads: 1,
  headDim: 16,
  normEps: 1e-5,
  tiedHead: true,
  qkvBias: false,
  outputBias: false,
  qkNorm: false,
  windows: [0],
  ropeTheta: 10_000,
  ropeScaling: null,
  maxPositions: 16,
};

const calls = 2000;
const repeats = 5;

/** Microseconds of one call: the fastest of some runs of many, one call after another. */
async function microseconds(call: () => Promise<unknown>): Promise<number> {
  for (let i = 0; i < calls / 10; i++) await call();
  let best = Number.POSITIVE_INFINITY;
  for (let repeat = 0; repeat < repeats; repeat++) {
    const start = performance.now();
    for (let i = 0; i < calls; i++) await call();
    best = Math.min(best, ((performance.now() - start) / calls) * 1000);
  }
  return best;
}

/** The cost of a call that does nothing, and of calls on a model that has next to nothing to compute. */
export async function callCost(): Promise<BenchRow[]> {
  const builder = new ForestBuilder();
  const prompt = builder.add([1, 2]);
  const pairs = [
    {
      chosen: builder.add([3], prompt),
      rejected: builder.add([4], prompt),
      referenceChosen: -3,
      referenceRejected: -3,
    },
  ];
  const forest = builder.build();
  const loss = { terms: [{ type: "sigmoid" as const, weight: 1 }], beta: 0.1 };
  using engine = await Engine.random(smallest, { device: "cpu", threads: 1 });
  const empty = await microseconds(callRoundTrip);
  const rows: [string, () => Promise<unknown>][] = [
    ["logProbs, 4 tokens", () => engine.logProbs(forest)],
    ["preferenceStep, 4 tokens", () => engine.preferenceStep(forest, pairs, loss)],
  ];
  const measured: BenchRow[] = [{ name: "call: nothing", value: empty, unit: "µs", note: "thread and back" }];
  for (const [name, call] of rows) {
    const value = await microseconds(call);
    measured.push({
      name: `call: ${name}`,
      value,
      unit: "µs",
      floor: empty,
      ratio: empty / value,
      note: "floor: a call that does nothing",
    });
  }
  return measured;
}

if (import.meta.main) console.table(await callCost());
