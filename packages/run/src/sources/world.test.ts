import { describe, expect, it } from "vitest";
import { parseConfig } from "../settings/config.ts";
import { worldSettings, worldSource } from "./world.ts";

describe("the embedded world", () => {
  it("has default settings that are valid as they are", () => {
    const settings = worldSettings();
    expect(parseConfig({}, settings).settings).toEqual(settings);
  });

  it("gives each iteration prompts of its own, none of them held out", () => {
    const settings = worldSettings();
    const source = worldSource({ ...settings, evaluation: { ...settings.evaluation, prompts: 100 } });
    const tasks = [...source.training(0, 100), ...source.training(1, 100), ...source.heldOut()];
    expect(new Set(tasks.map(({ id }) => id)).size).toBe(300);
  });

  it("puts demonstrations and graded examples into every batch of M0's training", () => {
    const settings = worldSettings();
    const start = { ...settings.start, demonstrations: 60, gradedExamples: 30 };
    const { data } = worldSource({ ...settings, start }).start;
    const judged = (data?.rows() ?? []).map(({ completion }) => JSON.stringify(completion).includes("Score:"));
    expect(judged.length).toBe(data?.count);
    for (let k = 0; k < 90; k += 9) expect(judged.slice(k, k + 9).filter(Boolean).length).toBe(3);
  });

  it("grades answers by a program", () => {
    const source = worldSource(worldSettings());
    const scores = source.training(0, 50).map((task) => source.trueScore?.(task, "nothing of the kind"));
    expect(Math.max(...scores.map((score) => score ?? 5))).toBeLessThan(3);
  });
});
