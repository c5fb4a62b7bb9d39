import type { ModelConfig } from "@tempora/engine";
import { createWorld } from "@tempora/world";
import { expect, it } from "vitest";
import { type MemoryFlags, requireTrainingMemory } from "./memory-check.ts";
import type { OpenModel } from "./model.ts";

const world: ModelConfig = createWorld({ seed: 0 }).modelConfig();
const flags: MemoryFlags & { device: "cpu" } = {
  optimizer: "adamw",
  maxTokens: 8192,
  gradientCheckpointing: false,
  device: "cpu",
};

const forest = { tokens: 100, scoredTokens: 60, treeTokens: 40 };

function check(config: ModelConfig, own = forest): string[] {
  const model = { checkpoint: { config, dtype: "f32" } } as unknown as OpenModel;
  const notes: string[] = [];
  requireTrainingMemory(model, flags, { forest: own, adapter: undefined }, (text) => notes.push(text));
  return notes;
}

it("tells what a training takes before it reads the weights", () => {
  expect(check(world)).toEqual([
    expect.stringMatching(/^Memory: about .* [MG]iB: weights .*, gradients .*; the machine has .* GiB\.$/),
  ]);
});

it("refuses a training that no machine holds", () => {
  const hiddenSize = 2 ** 20;
  const huge = { ...world, hiddenSize, intermediateSize: 4 * hiddenSize, layers: 100, windows: new Array(100).fill(0) };
  expect(() => check(huge)).toThrow(/The training needs about \d+ GiB of memory, the machine has .*smaller model/s);
});

it("counts the logits of the largest tree that is trained, not those of the largest there could be", () => {
  const config = { ...world, vocabSize: 150_000 };
  const workspace = (treeTokens: number) => {
    const [note = ""] = check(config, { tokens: 2000, scoredTokens: 1000, treeTokens });
    const [, size = "", unit = ""] = /workspace ([\d.]+) (MiB|GiB)/.exec(note) ?? [];
    return Number(size) * (unit === "GiB" ? 1024 : 1);
  };
  // 600 rows of logits in f32: 343 MiB.
  expect(workspace(800) - workspace(200)).toBeGreaterThan(340);
});
