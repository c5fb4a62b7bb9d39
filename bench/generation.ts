/**
 * Generation on the 135M shape in bf16: samples of one prompt. Runs in a process of its own
 * (`bun bench/generation.ts [MODEL.gguf]`: that model instead of random weights); prints one JSON line a case.
 */
import { Engine, type ModelConfig, type ModelSource } from "@tempora/engine";
import { openCheckpoint } from "@tempora/models";
import { randomModel } from "../packages/engine/src/random-weights.ts";
import { besideCeilings } from "./native-rows.ts";
import { type Ceilings, llama135M } from "./shapes.ts";

/**
 * Random weights give nearly level logits, so that a top p keeps tens of thousands of candidates; a trained model's are
 * peaked. With this final norm the likeliest tokens have probabilities as a trained model's have: the logits' standard
 * deviation is 5.8, and at temperature 0.7 the likeliest token has about half of the mass.
 */
export const peakedNorm = 12;

export type Logits = "peaked" | "flat" | "file";

export interface GenerationCase {
  logits: Logits;
  prompt: number;
  samples: number;
  newTokens: number;
}

export const generationCases: readonly GenerationCase[] = [
  ...[1, 7, 28].map((samples) => ({ logits: "peaked" as const, prompt: 128, samples, newTokens: 128 })),
  { logits: "peaked", prompt: 512, samples: 7, newTokens: 128 },
  ...[1, 7, 28].map((samples) => ({ logits: "flat" as const, prompt: 128, samples, newTokens: 128 })),
];

export const samplingSettings = { temperature: 0.7, topP: 0.9 };

export interface GenerationMeasurement extends GenerationCase {
  /** Of the model that was measured. */
  config: ModelConfig;
  tokens: number;
  seconds: number;
  /** Beside it. */
  ceilings: Ceilings;
}

export function promptIds(length: number): number[] {
  return Array.from({ length }, (_, i) => (i * 7) % 20_000);
}

async function measure(
  engine: Engine,
  work: GenerationCase,
): Promise<Omit<GenerationMeasurement, "config" | "ceilings">> {
  const start = performance.now();
  let tokens = 0;
  const completions = engine.generate([{ ids: promptIds(work.prompt) }], {
    n: work.samples,
    ...samplingSettings,
    maxNewTokens: work.newTokens,
    seed: work.samples,
    maxRows: work.samples,
  });
  for await (const completion of completions) tokens += completion.ids.length;
  return { ...work, tokens, seconds: (performance.now() - start) / 1000 };
}

/** As a step's median: the first generation after a pause, such as one for the ceilings, takes up to 5 % longer. */
async function medianOfThree(engine: Engine, work: GenerationCase): Promise<Awaited<ReturnType<typeof measure>>> {
  const runs = [await measure(engine, work), await measure(engine, work), await measure(engine, work)];
  return runs.sort((a, b) => a.seconds - b.seconds)[1] as (typeof runs)[number];
}

/** Random weights whose logits are as peaked as asked for. */
export function randomWeights(logits: Logits): ModelSource {
  const source = randomModel(llama135M, "bf16", 1, 0.02);
  if (logits !== "peaked") return source;
  return {
    ...source,
    async *tensors() {
      for await (const tensor of source.tensors()) {
        if (tensor.name !== "model.norm.weight") yield tensor;
        else yield { ...tensor, read: async () => scaled(await tensor.read(), peakedNorm) };
      }
    },
  };
}

function scaled(bytes: Uint8Array, factor: number): Uint8Array {
  const values = new Float32Array(bytes.slice().buffer).map((value) => value * factor);
  return new Uint8Array(values.buffer);
}

async function measureAll(source: ModelSource, cases: readonly GenerationCase[]): Promise<void> {
  using engine = await Engine.load(source, { device: "cpu", dtype: "bf16" });
  await measure(engine, { logits: "flat", prompt: 128, samples: 2, newTokens: 8 }); // packs the weights
  for (const work of cases) {
    await measure(engine, work); // takes the cache's memory from the system, as the first iteration of a training does
    const { measured, ceilings } = await besideCeilings(() => medianOfThree(engine, work));
    console.log(JSON.stringify({ ...measured, ceilings, config: source.config }));
  }
}

if (import.meta.main) {
  const file = process.argv[2];
  if (file === undefined) {
    for (const logits of ["peaked", "flat"] as const) {
      const cases = generationCases.filter((work) => work.logits === logits);
      await measureAll(randomWeights(logits), cases);
    }
  } else {
    const cases = generationCases.filter((work) => work.logits === "peaked");
    await measureAll(
      await openCheckpoint(file),
      cases.map((work) => ({ ...work, logits: "file" as const })),
    );
  }
}
