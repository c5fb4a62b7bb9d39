/**
 * The DPO step on the 135M shape: 4 pairs of 128 + 2 × 128 tokens, bf16, cached reference, AdamW with clipping.
 * Runs in a process of its own (`bun bench/step.ts`), so that its peak memory is this step's alone; prints one JSON line.
 */
import { Engine, ForestBuilder, type PreferencePair } from "@tempora/engine";
import { llama135M } from "./shapes.ts";

export const stepShape = { pairs: 4, prompt: 128, response: 128 };

export interface StepMeasurement {
  stepSeconds: number;
  pairsPerSecond: number;
  peakBytes: number;
}

/** Token ids that differ from pair to pair; what they are does not matter for speed. */
function ids(length: number, seed: number): Int32Array {
  return Int32Array.from({ length }, (_, i) => (seed * 7919 + i * 104_729) % llama135M.vocabSize);
}

async function measure(steps: number): Promise<StepMeasurement> {
  using engine = await Engine.random(llama135M, { device: "cpu", dtype: "bf16", seed: 1 });
  const seconds: number[] = [];
  for (let step = 0; step < steps; step++) {
    const builder = new ForestBuilder();
    const pairs: PreferencePair[] = [];
    for (let pair = 0; pair < stepShape.pairs; pair++) {
      const seed = step * 100 + pair * 10;
      const prompt = builder.add(ids(stepShape.prompt, seed), -1, false);
      const chosen = builder.add(ids(stepShape.response, seed + 1), prompt);
      const rejected = builder.add(ids(stepShape.response, seed + 2), prompt);
      pairs.push({ chosen, rejected, referenceChosen: -1400, referenceRejected: -1400 });
    }
    const forest = builder.build();
    const start = performance.now();
    await engine.preferenceStep(forest, pairs, { terms: [{ type: "sigmoid", weight: 1 }], beta: 0.1 });
    await engine.optimizerStep({ learningRate: 1e-6, maxGradNorm: 1, seed: step });
    seconds.push((performance.now() - start) / 1000);
  }
  // The first step allocates.
  const sorted = seconds.slice(1).sort((a, b) => a - b);
  const median = sorted[Math.floor(sorted.length / 2)] as number;
  return {
    stepSeconds: median,
    pairsPerSecond: stepShape.pairs / median,
    // libuv gives kilobytes.
    peakBytes: process.resourceUsage().maxRSS * 1024,
  };
}

if (import.meta.main) console.log(JSON.stringify(await measure(Number(process.argv[2] ?? 6))));
