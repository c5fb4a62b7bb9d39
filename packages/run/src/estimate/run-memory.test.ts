import { expect, it } from "vitest";
import { tinySettings } from "../loop/tiny.ts";
import type { Settings } from "../settings/settings.ts";
import { worldSettings, worldSource } from "../sources/world.ts";
import { tokenizerFrom } from "../stages/start.ts";
import { memoryOf, startLengths } from "./run-memory.ts";

const { engine, ...tiny } = tinySettings();
const settings: Settings = { ...tiny, engine: { ...engine, device: "cpu" } };

it("knows M0's rows by a few of them, in the shares of all", async () => {
  const whole = worldSettings();
  const { start } = worldSource({ ...whole, start: { ...whole.start, demonstrations: 2000, gradedExamples: 1000 } });
  if (start.kind !== "new") throw new Error("the world starts from a new model");
  const tokenizer = await tokenizerFrom(start.files);
  const reading = { tokenizer, maxLength: start.config.maxPositions, now: new Date(), signal: undefined };
  const [all, some] = [await startLengths(start, 3000, reading), await startLengths(start, 300, reading)];
  expect([all.rows, some.rows]).toEqual([3000, 3000]);
  expect(start.data.some(300).length).toBe(300);
  expect(Math.abs(some.tokens / all.tokens - 1)).toBeLessThan(0.05);
});

it("counts for M0's training the largest batch that rows of such lengths make, not one of the longest rows alone", () => {
  const source = worldSource(settings);
  if (source.start.kind !== "new") throw new Error("the world starts from a new model");
  const model = { config: source.start.config, dtype: "f32" as const, adapter: null };
  const training = { ...settings.start.training, batchPairs: 1024, maxTokens: 2 ** 20 };
  const workspace = (deviation: number) => {
    const start = { rows: 10_000, tokens: 200_000, deviation, longest: 100 };
    const changed = { ...settings, start: { ...settings.start, training } };
    return memoryOf(changed, model, { tasks: [], prompts: 1, start }).training.workspace;
  };
  // Every row of the mean; the mean and four parts of 32 of the deviation; all of the longest.
  const strayed = workspace(40) / workspace(0);
  expect(strayed).toBeGreaterThan(1.15);
  expect(strayed).toBeLessThan(1.3);
  expect(workspace(10_000) / workspace(0)).toBeCloseTo(5, 0);
});
