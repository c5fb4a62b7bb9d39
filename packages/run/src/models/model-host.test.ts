import { cp, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { Engine } from "@tempora/engine";
import { oracle, scratch } from "@tempora/testing";
import { expect, test, vi } from "vitest";
import { fileHashes } from "./file-hashes.ts";
import { knownHash } from "./known-hashes.ts";
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

test("a model of the store is read only where it is the one that was saved", async () => {
  const given = await modelRef("M0", "llama");
  const model = { ...given, files: await fileHashes(given.folder) };
  const file = join(model.folder, "model.safetensors");
  const bytes = await readFile(file);
  (bytes[bytes.length - 100] as number) ^= 1;
  await writeFile(file, bytes);
  using host = new ModelHost(options, undefined);
  await expect(host.use(model)).rejects.toThrow(/The model is not the one that was saved/);
  // Of one that was given nobody has said what it was.
  await host.use(given);
});

test("the hash of a model is known until one of its files changes", async () => {
  const { folder, hash } = await modelRef("M0", "llama");
  const store = await scratch();
  let read = 0;
  const known = () => knownHash(store, folder, { onProgress: () => read++ });
  expect(await known()).toBe(hash);
  expect(read).toBeGreaterThan(0);
  read = 0;
  expect(await known()).toBe(hash);
  expect(read).toBe(0);
  const file = join(folder, "model.safetensors");
  const bytes = await readFile(file);
  (bytes[bytes.length - 100] as number) ^= 1;
  await writeFile(file, bytes);
  expect(await known()).not.toBe(hash);
  expect(read).toBeGreaterThan(0);
  await writeFile(join(store, "model-hashes.json"), "damaged");
  expect(await known()).not.toBe(hash);
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
