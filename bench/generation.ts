/**
 * Generation on the 135M shape in bf16: 128 prompt and 128 new tokens, 1, 7 and 28 samples of one prompt. Runs in a
 * process of its own (`bun bench/generation.ts`); prints one JSON line a sample count.
 */
import { Engine } from "@tempora/engine";
import { llama135M } from "./shapes.ts";

export const generationShape = { prompt: 128, newTokens: 128, samples: [1, 7, 28] };

export interface GenerationMeasurement {
  samples: number;
  tokens: number;
  seconds: number;
}

async function measure(engine: Engine, samples: number): Promise<GenerationMeasurement> {
  const prompt = Array.from({ length: generationShape.prompt }, (_, i) => (i * 7) % 20_000);
  const start = performance.now();
  let tokens = 0;
  const completions = engine.generate([{ ids: prompt }], {
    n: samples,
    temperature: 0.7,
    topP: 0.9,
    maxNewTokens: generationShape.newTokens,
    seed: samples,
    maxRows: samples,
  });
  for await (const completion of completions) tokens += completion.ids.length;
  return { samples, tokens, seconds: (performance.now() - start) / 1000 };
}

if (import.meta.main) {
  using engine = await Engine.random(llama135M, { device: "cpu", dtype: "bf16", seed: 1 });
  await measure(engine, 2); // packs the weights
  for (const samples of generationShape.samples) console.log(JSON.stringify(await measure(engine, samples)));
}
