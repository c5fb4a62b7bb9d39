import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { Engine } from "@tempora/engine";
import { parameterShapes } from "@tempora/engine/model";
import { editJson, failure, oracle } from "@tempora/testing";
import { expect, test } from "vitest";
import { openCheckpoint } from "../checkpoint.ts";
import { readSafetensors } from "../safetensors.ts";
import { readFloats, saveCopy } from "../save-copy.ts";
import { copyOracle } from "../testing.ts";

const matrix = "model.layers.0.mlp.up_proj.weight";

async function theirNumbers(way: string): Promise<Map<string, Float32Array>> {
  const { tensors } = await readSafetensors(oracle("bitsandbytes", way, "dequantised.safetensors"));
  const read = await Promise.all(
    [...tensors.values()].map(async (tensor) => [tensor.name, new Float32Array((await tensor.read()).buffer)] as const),
  );
  return new Map(read);
}

test.each(["single", "double"])("bitsandbytes' NF4 is read as bitsandbytes reads it: %s quantisation", async (way) => {
  const checkpoint = await openCheckpoint(oracle("bitsandbytes", way));
  expect(checkpoint.dtype).toBe("f32");
  const theirs = await theirNumbers(way);
  expect(theirs.size).toBe(7);
  const tensors = await Array.fromAsync(checkpoint.tensors());
  expect(tensors.map(({ name }) => name)).toEqual(parameterShapes(checkpoint.config).map(({ name }) => name));
  for (const tensor of tensors) {
    const expected = theirs.get(tensor.name);
    if (expected === undefined) continue;
    const ours = await readFloats(tensor);
    expect(ours.length).toBe(expected.length);
    expect(Math.max(...ours.map((value, i) => Math.abs(value - expected[i]!)))).toBeLessThan(1e-7);
    expect(tensor.blocks?.format).toBe(way === "double" ? "NF4" : undefined);
  }
});

test("an NF4 engine holds the file's own blocks, and takes plain weights too", async () => {
  const theirs = await theirNumbers("double");
  const engine = await Engine.load(await openCheckpoint(oracle("bitsandbytes", "double")), {
    quantize: "nf4",
    device: "cpu",
  });
  try {
    const held = async (name: string) => new Float32Array((await engine.getParameter(name)).slice().buffer);
    for (const [name, expected] of theirs) {
      const ours = await held(name);
      expect(Math.max(...ours.map((value, i) => Math.abs(value - expected[i]!)))).toBeLessThan(1e-7);
    }
    // Numbers are quantized, blocks are taken as they are: the same engine takes either.
    await engine.setParameters(await openCheckpoint(oracle("bitsandbytes", "plain")));
    const requantised = await held(matrix);
    await engine.setParameters(await openCheckpoint(oracle("bitsandbytes", "double")));
    const again = await held(matrix);
    expect(Math.max(...again.map((value, i) => Math.abs(value - theirs.get(matrix)![i]!)))).toBeLessThan(1e-7);
    expect(Math.max(...requantised.map((value, i) => Math.abs(value - theirs.get(matrix)![i]!)))).toBeLessThan(1e-6);
  } finally {
    engine.dispose();
  }
});

test("a copy of it is plain, and says so", async () => {
  const folder = await copyOracle("bitsandbytes", "double");
  const out = `${folder}-plain`;
  await saveCopy(await openCheckpoint(folder), out);
  const copied = await openCheckpoint(out);
  expect(copied.raw).not.toHaveProperty("quantization_config");
  expect(copied.blockBytes?.size).toBe(0);
  const theirs = await theirNumbers("double");
  for await (const tensor of copied.tensors()) {
    const expected = theirs.get(tensor.name);
    if (expected === undefined) continue;
    const ours = await readFloats(tensor);
    expect(Math.max(...ours.map((value, i) => Math.abs(value - expected[i]!)))).toBeLessThan(1e-7);
  }
});

/** Changes the header of the weights, keeping its length. */
async function editHeader(folder: string, change: (text: string) => string): Promise<void> {
  const file = join(folder, "model.safetensors");
  const bytes = await readFile(file);
  const length = Number(bytes.readBigUInt64LE(0));
  const text = change(bytes.toString("latin1", 8, 8 + length));
  bytes.write(text.padEnd(length), 8, "latin1");
  await writeFile(file, bytes);
}

/** Changes bytes of one tensor. */
async function editTensor(folder: string, name: string, change: (bytes: Buffer) => void): Promise<void> {
  const file = join(folder, "model.safetensors");
  const { offset, byteLength } = (await readSafetensors(file)).tensors.get(name)!;
  const bytes = await readFile(file);
  change(bytes.subarray(offset, offset + byteLength));
  await writeFile(file, bytes);
}

const damages: [string, (folder: string) => Promise<void>, RegExp, string][] = [
  [
    "a part is missing",
    (folder) => editHeader(folder, (text) => text.replace(`${matrix}.absmax`, `${matrix}.absmix`)),
    /absmax of this tensor, which is in 4 bits, is missing/,
    `${matrix}.absmax`,
  ],
  [
    "another map of codes",
    (folder) => editTensor(folder, `${matrix}.quant_map`, (bytes) => bytes.writeFloatLE(0.3, 12)),
    /none of NF4's/,
    `${matrix}.quant_map`,
  ],
  [
    "another map of maxima",
    (folder) => editTensor(folder, `${matrix}.nested_quant_map`, (bytes) => bytes.writeFloatLE(Number.NaN, 12)),
    /none of NF4's/,
    `${matrix}.nested_quant_map`,
  ],
  [
    "a state that is no JSON",
    (folder) => editTensor(folder, `${matrix}.quant_state.bitsandbytes__nf4`, (bytes) => bytes.write("[", 0)),
    /is no JSON/,
    `${matrix}.quant_state.bitsandbytes__nf4`,
  ],
  [
    "a state of another shape",
    (folder) =>
      editTensor(folder, `${matrix}.quant_state.bitsandbytes__nf4`, (bytes) =>
        bytes.write("[41", bytes.indexOf("[40")),
      ),
    /says the shape \[41,24\]; config\.json asks for \[40,24\]/,
    `${matrix}.quant_state.bitsandbytes__nf4`,
  ],
  [
    "FP4",
    (folder) => editHeader(folder, (text) => text.replaceAll("bitsandbytes__nf4", "bitsandbytes__fp4")),
    /bitsandbytes' FP4/,
    "model.layers.0.self_attn.q_proj.weight",
  ],
];

test.each(damages)("is refused by name: %s", async (_, damage, what, field) => {
  const folder = await copyOracle("bitsandbytes", "double");
  await damage(folder);
  const error = await failure(() => openCheckpoint(folder));
  expect(error.what).toMatch(what);
  expect(error.where.field).toBe(field);
});

test("a scale that is not finite is refused as weights that are not", async () => {
  const folder = await copyOracle("bitsandbytes", "double");
  await editTensor(folder, `${matrix}.nested_absmax`, (bytes) => bytes.writeFloatLE(Number.POSITIVE_INFINITY, 0));
  const error = await failure(async () =>
    Engine.load(await openCheckpoint(folder), { quantize: "nf4", device: "cpu" }),
  );
  expect(error.what).toMatch(/NaN or infinity/);
  expect(error.where.field).toBe(matrix);
});

test("8-bit weights of bitsandbytes are refused by config.json", async () => {
  const folder = await copyOracle("bitsandbytes", "double");
  editJson(join(folder, "config.json"), (config) => {
    config.quantization_config = { quant_method: "bitsandbytes", load_in_8bit: true };
  });
  expect((await failure(() => openCheckpoint(folder))).where.field).toBe("quantization_config");
});
