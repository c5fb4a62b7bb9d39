// The addon on a CUDA device, from Bun. Only `bun run test:gpu` runs this; without a device every test fails and says so.
import { deviceInfo, Engine } from "@tempora/engine";
import { openCheckpoint } from "@tempora/models";
import { families, oracle } from "@tempora/testing";
import { beforeAll, describe, expect, test } from "vitest";
import { oracleRows, pairForest, relativeError, type ScoredPair } from "../support/oracles.ts";

beforeAll(() => {
  const { cuda } = deviceInfo();
  if (cuda.devices.length > 0) return;
  throw new Error(`These tests want a CUDA device: ${cuda.problem ?? "none was found"}`);
});

async function load(family: string, device: "cpu" | "cuda" | "auto", dtype: "f32" | "bf16"): Promise<Engine> {
  return Engine.load(await openCheckpoint(oracle(family, "policy")), { device, dtype });
}

/** Log-probs and all gradients of one DPO step. */
async function dpoStep(family: string, device: "cpu" | "cuda", dtype: "f32" | "bf16") {
  using engine = await load(family, device, dtype);
  const { forest, pairs } = pairForest(oracleRows<ScoredPair>(`${family}/logprobs.jsonl`).slice(0, 4));
  const loss = { terms: [{ type: "sigmoid" as const, weight: 1 }], beta: 0.1 };
  const { token } = await engine.preferenceStep(forest, pairs, loss);
  const gradients: Float32Array[] = [];
  for (const { name } of engine.parameters) gradients.push(await engine.getGradient(name));
  return { token, gradients };
}

test("device auto takes the CUDA device and names it", async () => {
  using engine = await load("llama", "auto", "f32");
  expect(engine.device).toBe("cuda");
  expect(engine.deviceName).toBe(deviceInfo().cuda.devices[0]);
});

describe.each(families)("%s", (family) => {
  test.each([
    ["f32", 1e-4, 1e-3],
    ["bf16", 2e-2, 0.15],
  ] as const)("in %s a DPO step is the CPU's f32 step, by relative norm", async (dtype, ofLogProbs, ofGradients) => {
    const want = await dpoStep(family, "cpu", "f32");
    const got = await dpoStep(family, "cuda", dtype);
    expect(relativeError(got.token, want.token)).toBeLessThan(ofLogProbs);
    got.gradients.forEach((gradient, i) => {
      expect(relativeError(gradient, want.gradients[i] as Float32Array), `parameter ${i}`).toBeLessThan(ofGradients);
    });
  });

  test("two steps have the same bits", async () => {
    expect(await dpoStep(family, "cuda", "bf16")).toEqual(await dpoStep(family, "cuda", "bf16"));
  });

  test("a completion does not depend on what else is generated", async () => {
    using engine = await load(family, "cuda", "bf16");
    const prompts = oracleRows<ScoredPair>(`${family}/logprobs.jsonl`).slice(0, 4);
    const options = { temperature: 1, maxNewTokens: 16, seed: 3 };
    const all = prompts.map((row, key) => ({ ids: row.prompt_ids, key, samples: 3 }));
    const together = new Map<string, number[]>();
    for await (const { prompt, sample, ids } of engine.generate(all, options)) together.set(`${prompt}.${sample}`, ids);
    for await (const { sample, ids } of engine.generate(all.slice(2, 3), options)) {
      expect(ids).toEqual(together.get(`2.${sample}`));
    }
  });
});
