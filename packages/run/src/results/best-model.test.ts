import { describe, expect, it } from "vitest";
import { bestModel, fallen } from "./best-model.ts";
import type { ModelResult } from "./results.ts";

const models = (...means: number[]) =>
  means.map((mean, index) => ({ model: `M${index}`, heldOutScore: { mean } }) as ModelResult);

describe("the best model", () => {
  it("is the one with the highest held-out score, the earlier of equal ones", () => {
    expect(bestModel(models(2.5, 2.8, 2.8, 2.6))?.model).toBe("M1");
    expect(bestModel([])).toBeNull();
  });
});

describe("a loop that falls", () => {
  it("has as many models in a row below the best as are allowed", () => {
    expect(fallen(models(2.5, 2.8, 2.7), 2)).toBeNull();
    expect(fallen(models(2.5, 2.8, 2.7, 2.75), 2)).toBe("its held-out score fell: M2 2.70, M3 2.75 after M1 2.80");
    expect(fallen(models(2.5, 2.4), 1)).toMatch(/M1 2\.40 after M0 2\.50/);
  });

  it("goes on where nothing is to stop it", () => {
    expect(fallen(models(2.5, 2.4, 2.3, 2.2), 0)).toBeNull();
    expect(fallen(models(2.5, 2.4, 2.6), 1)).toBeNull();
  });
});
