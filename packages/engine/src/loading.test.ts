import { describe, expect, test } from "vitest";
import { Engine } from "./engine.ts";
import type { ModelSource, TensorSource } from "./model.ts";
import { deviceInfo } from "./native.ts";
import { modelOf, random, weights, withValues } from "./testing/engines.ts";
import { changedModel, tinyConfig } from "./testing/models.ts";

describe("loading", () => {
  async function source(): Promise<ModelSource> {
    using engine = await random(tinyConfig);
    return await modelOf(engine);
  }
  const norm = "model.layers.1.input_layernorm.weight";

  test.each<[string, (tensor: TensorSource) => TensorSource | null, string]>([
    [
      "misses a tensor",
      (t) => (t.name === norm ? null : t),
      `The model lacks ${norm} (memory). Get the whole checkpoint`,
    ],
    [
      "has one too many",
      (t) => (t.name === norm ? { ...t, name: "lm_head.bias" } : t),
      "The tensor has no place in this model (memory, field lm_head.bias)",
    ],
    ["has one twice", (t) => (t.name === norm ? { ...t, name: "model.norm.weight" } : t), "The tensor is there twice"],
    [
      "has one of another shape",
      (t) => (t.name === norm ? { ...t, shape: [25] } : t),
      `The tensor has shape [25], but the model needs [24] (memory, field ${norm})`,
    ],
    [
      "has one of another type",
      (t) => (t.name === norm ? { ...t, dtype: "f16" as "f32" } : t),
      "The tensor has element type f16",
    ],
    [
      "is truncated",
      (t) => (t.name === norm ? { ...t, read: async () => new Uint8Array(90) } : t),
      `The tensor has 90 bytes instead of 96 (memory, field ${norm}). The file is truncated`,
    ],
    [
      "holds NaN",
      (t) => (t.name === norm ? withValues(t, new Float32Array(24).fill(Number.NaN)) : t),
      `The tensor holds NaN or infinity (memory, field ${norm})`,
    ],
    [
      "holds infinity",
      (t) => (t.name === norm ? withValues(t, new Float32Array(24).fill(Number.NEGATIVE_INFINITY)) : t),
      "The tensor holds NaN or infinity",
    ],
  ])("a model that %s names the tensor", async (_, change, message) => {
    await expect(Engine.load(changedModel(await source(), change), { device: "cpu" })).rejects.toThrow(message);
  });

  test("refuses another model's weights by the field that differs", async () => {
    using engine = await random(tinyConfig);
    const other = { ...(await source()), config: { ...tinyConfig, ropeTheta: 500_000 } };
    await expect(engine.setParameters(other)).rejects.toThrow("ropeTheta is 500000, but the engine holds 10000");
  });

  test("passes on what a tensor's file says, and can be aborted", async () => {
    const model = await source();
    const broken = changedModel(model, (t) => ({ ...t, read: () => Promise.reject(new Error("disk on fire")) }));
    await expect(Engine.load(broken, { device: "cpu" })).rejects.toThrow("disk on fire");
    const abort = new AbortController();
    const progress: number[] = [];
    const loading = Engine.load(model, {
      device: "cpu",
      signal: abort.signal,
      onProgress: (done) => {
        progress.push(done);
        abort.abort();
      },
    });
    await expect(loading).rejects.toMatchObject({ name: "AbortError" });
    expect(progress.length).toBeLessThan(5);
  });

  test("gives the bytes back of tensors whose reads are its own, and leaves others alone", async () => {
    const given = await source();
    const read: { fresh: boolean; bytes: Uint8Array }[] = [];
    const model = changedModel(given, (tensor) => {
      const fresh = tensor.name !== norm;
      const own = async () => {
        const bytes = Uint8Array.from(await tensor.read());
        read.push({ fresh, bytes });
        return bytes;
      };
      return { ...tensor, read: own, ...(fresh ? { fresh: true as const } : {}) };
    });
    using engine = await Engine.load(model, { device: "cpu" });
    expect(read.length).toBe(engine.parameters.length);
    if ("transfer" in ArrayBuffer.prototype)
      for (const { fresh, bytes } of read) expect(bytes.length === 0).toBe(fresh);
    using plain = await Engine.load(given, { device: "cpu" });
    expect((await weights(engine)).equals(await weights(plain))).toBe(true);
  });

  test("asks for a CUDA device that is not there by name", async () => {
    if (deviceInfo().cuda.devices.length > 0) {
      using engine = await Engine.random(tinyConfig, { device: "cuda" });
      expect(engine.device).toBe("cuda");
    } else {
      await expect(Engine.random(tinyConfig, { device: "cuda" })).rejects.toThrow('Use device "cpu", or "auto"');
    }
  });

  test("keeps f32 bits, rounds to bf16 once, and draws the same weights for the same seed", async () => {
    using first = await random(tinyConfig, 7);
    using again = await random(tinyConfig, 7);
    using other = await random(tinyConfig, 8);
    expect((await weights(first)).equals(await weights(again))).toBe(true);
    expect((await weights(first)).equals(await weights(other))).toBe(false);
    using rounded = await Engine.load(await modelOf(first), { device: "cpu", dtype: "bf16" });
    using reloaded = await Engine.load(await modelOf(rounded), { device: "cpu", dtype: "f32" });
    using back = await Engine.load(await modelOf(reloaded), { device: "cpu", dtype: "bf16" });
    expect((await weights(rounded)).equals(await weights(back))).toBe(true);
  });
});
