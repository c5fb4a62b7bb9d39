import type { ModelConfig } from "@tempora/engine";
import { createWorld } from "@tempora/world";
import { expect, it } from "vitest";
import { type MemoryFlags, requireTrainingMemory } from "./memory-check.ts";
import type { OpenModel } from "./model.ts";

const world: ModelConfig = createWorld({ seed: 0 }).modelConfig();
const flags: MemoryFlags & { device: "cpu"; batchPairs: number } = {
  optimizer: "adamw",
  maxTokens: 8192,
  gradientCheckpointing: false,
  device: "cpu",
  batchPairs: 16,
};

function check(config: ModelConfig): string[] {
  const model = { checkpoint: { config, dtype: "f32" } } as unknown as OpenModel;
  const notes: string[] = [];
  requireTrainingMemory(model, flags, { rows: [40, 60], adapter: undefined }, (text) => notes.push(text));
  return notes;
}

it("tells what a training takes before it reads the weights", () => {
  expect(check(world)).toEqual([expect.stringMatching(/^Memory: at most about .* MiB: weights .*, gradients .*\.$/)]);
});

it("refuses a training that no machine holds", () => {
  const hiddenSize = 2 ** 20;
  const huge = { ...world, hiddenSize, intermediateSize: 4 * hiddenSize, layers: 100, windows: new Array(100).fill(0) };
  expect(() => check(huge)).toThrow(/The training needs about \d+ GiB of memory, the machine has .*smaller model/s);
});
