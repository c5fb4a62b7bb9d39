import { cp, rm } from "node:fs/promises";
import { join } from "node:path";
import { Engine } from "@tempora/engine";
import { oracle, scratch } from "@tempora/testing";
import { expect, test, vi } from "vitest";
import { ModelHost } from "./model-host.ts";
import { wholeModel } from "./model-ref.ts";

const options = { device: "cpu" as const, threads: 1, dtype: null, quantize: null, moments: "f32" as const };

async function modelRef(name: string, family: string) {
  const folder = join(await scratch(), name);
  await cp(oracle(family, "policy"), folder, { recursive: true });
  return wholeModel(name, folder);
}

test("a trained model that the engine still holds is not read again", async () => {
  const start = await modelRef("M0", "llama");
  const next = { ...(await modelRef("M1", "llama")), hash: "of the trained weights" };
  using host = new ModelHost(options, undefined);
  const { engine } = await host.useForTraining(start);
  await host.trained(start, next.hash);
  await host.open(next);
  await rm(join(next.folder, "model.safetensors"));
  const read = vi.spyOn(Engine.prototype, "setParameters");
  expect((await host.use(next)).engine).toBe(engine);
  expect(read).not.toHaveBeenCalled();
  await host.use(start);
  expect(read).toHaveBeenCalledTimes(1);
});

test("an idle engine of another shape is gone before training begins", async () => {
  const [judge, start] = [await modelRef("judge", "qwen3"), await modelRef("M0", "llama")];
  using host = new ModelHost(options, undefined);
  const { engine } = await host.use(judge);
  const dispose = vi.spyOn(engine, "dispose");
  await host.use(start);
  expect(dispose).not.toHaveBeenCalled();
  await host.useForTraining(start);
  expect(dispose).toHaveBeenCalledTimes(1);
  const again = await host.use(judge);
  expect(again.engine).not.toBe(engine);
});
