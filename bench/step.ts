/**
 * The DPO step on the 135M shape: 4 pairs of 128 + 2 × 128 tokens, bf16, cached reference, AdamW with clipping.
 * Runs in a process of its own (`bun bench/step.ts [whole|lora|nf4|checkpointed]`), so that its peak memory is this step's alone;
 * prints one JSON line.
 */
import { Engine, ForestBuilder, type PreferencePair } from "@tempora/engine";
import { llama135M } from "./shapes.ts";

export const stepShape = { pairs: 4, prompt: 128, response: 128 };
export const loraRank = 16;

/** What is trained: all weights, LoRA adapters over them, over weights in NF4, or with checkpointing of activations. */
export const stepVariants = ["whole", "lora", "nf4", "checkpointed"] as const;
export type StepVariant = (typeof stepVariants)[number];

export interface StepMeasurement {
  stepSeconds: number;
  pairsPerSecond: number;
  peakBytes: number;
}

/** Token ids that differ from pair to pair; what they are does not matter for speed. */
function ids(length: number, seed: number): Int32Array {
  return Int32Array.from({ length }, (_, i) => (seed * 7919 + i * 104_729) % llama135M.vocabSize);
}

async function engineOf(variant: StepVariant): Promise<Engine> {
  const quantize = variant === "nf4" ? ("nf4" as const) : undefined;
  const engine = await Engine.random(llama135M, { device: "cpu", dtype: "bf16", seed: 1, quantize });
  if (variant !== "whole") {
    await engine.adapters.add("bench", { rank: loraRank, alpha: 2 * loraRank, targets: "all-linear" });
    await engine.adapters.activate("bench");
  }
  return engine;
}

function batch(step: number) {
  const builder = new ForestBuilder();
  const pairs: PreferencePair[] = [];
  for (let pair = 0; pair < stepShape.pairs; pair++) {
    const seed = step * 100 + pair * 10;
    const prompt = builder.add(ids(stepShape.prompt, seed), -1, false);
    const chosen = builder.add(ids(stepShape.response, seed + 1), prompt);
    const rejected = builder.add(ids(stepShape.response, seed + 2), prompt);
    pairs.push({ chosen, rejected, referenceChosen: -1400, referenceRejected: -1400 });
  }
  return { forest: builder.build(), pairs };
}

async function measure(variant: StepVariant, steps: number): Promise<StepMeasurement> {
  using engine = await engineOf(variant);
  const seconds: number[] = [];
  for (let step = 0; step < steps; step++) {
    const { forest, pairs } = batch(step);
    const start = performance.now();
    const loss = { terms: [{ type: "sigmoid", weight: 1 }], beta: 0.1 } as const;
    await engine.preferenceStep(forest, pairs, loss, { checkpointing: variant === "checkpointed" });
    await engine.optimizerStep({ learningRate: 1e-6, maxGradNorm: 1, seed: step });
    seconds.push((performance.now() - start) / 1000);
  }
  // The first step allocates, and the second takes the workspace anew, as one piece of the size that the first needed.
  const sorted = seconds.slice(2).sort((a, b) => a - b);
  const median = sorted[Math.floor(sorted.length / 2)] as number;
  return {
    stepSeconds: median,
    pairsPerSecond: stepShape.pairs / median,
    // libuv gives kilobytes.
    peakBytes: process.resourceUsage().maxRSS * 1024,
  };
}

if (import.meta.main) {
  const variant = stepVariants.find((known) => known === (process.argv[2] ?? "whole"));
  if (variant === undefined) throw new Error(`Name one of ${stepVariants.join(", ")}.`);
  console.log(JSON.stringify(await measure(variant, 7)));
}
