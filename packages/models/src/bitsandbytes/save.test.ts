import { join } from "node:path";
import { failure, oracle, scratch } from "@tempora/testing";
import { expect, test } from "vitest";
import { openCheckpoint } from "../checkpoint.ts";
import { readJsonObject } from "../json-file.ts";
import { readSafetensors } from "../safetensors.ts";
import { saveNf4 } from "./save.ts";

async function written(source: string, file = "model.safetensors") {
  const folder = join(await scratch(), "nf4");
  await saveNf4(await openCheckpoint(source), folder);
  return { folder, ours: (await readSafetensors(join(folder, file))).tensors };
}

const theirs = async () => (await readSafetensors(oracle("bitsandbytes", "double", "model.safetensors"))).tensors;
const statePart = ".quant_state.bitsandbytes__nf4";

/** A state without its offset, which is the mean of the maxima, and the offset. */
function split(bytes: Uint8Array): [string, number] {
  const text = new TextDecoder().decode(bytes);
  const offset = (JSON.parse(text) as { nested_offset: number }).nested_offset;
  return [text.replace(String(offset), "offset"), offset];
}

test("plain weights are written as bitsandbytes writes them, byte for byte but for the sum of the maxima", async () => {
  const { ours, folder } = await written(oracle("bitsandbytes", "plain"));
  const wanted = await theirs();
  expect([...ours.keys()].sort()).toEqual([...wanted.keys()].sort());
  for (const [name, tensor] of wanted) {
    const own = ours.get(name)!;
    const [bytes, expected] = [await own.read(), await tensor.read()];
    if (name.endsWith(statePart)) {
      const [[text, offset], [theirText, theirOffset]] = [split(bytes), split(expected)];
      expect(text).toBe(theirText);
      expect(Math.abs(offset - theirOffset)).toBeLessThan(1e-6 * theirOffset);
      continue;
    }
    expect(own).toMatchObject({ dtype: tensor.dtype, shape: tensor.shape });
    if (/nested_(absmax|quant_map)$/.test(name)) {
      const floats = new Float32Array(bytes.slice().buffer);
      const expectedFloats = new Float32Array(expected.slice().buffer);
      for (const [i, value] of floats.entries()) {
        expect(Math.abs(value - expectedFloats[i]!)).toBeLessThanOrEqual(1e-6 * Math.abs(expectedFloats[i]!));
      }
    } else {
      expect(Buffer.compare(bytes, expected), name).toBe(0);
    }
  }
  const config = await readJsonObject(join(folder, "config.json"), "config");
  expect(config.quantization_config).toMatchObject({ quant_method: "bitsandbytes", load_in_4bit: true });
});

test("a checkpoint of bitsandbytes is written with the blocks that it has", async () => {
  const { ours } = await written(oracle("bitsandbytes", "double"));
  for (const [name, tensor] of await theirs()) {
    if (name.endsWith("nested_quant_map")) continue;
    expect(Buffer.compare(await ours.get(name)!.read(), await tensor.read()), name).toBe(0);
  }
});

test("what was written opens again, with its blocks", async () => {
  const { folder } = await written(oracle("llama", "policy"));
  const again = await openCheckpoint(folder);
  expect(again.blockBytes?.size).toBe(7 * again.config.layers);
});

test("numbers that are not finite are refused by name", async () => {
  const checkpoint = await openCheckpoint(oracle("bitsandbytes", "plain"));
  const tensors = (await Array.fromAsync(checkpoint.tensors())).map((source) => ({
    ...source,
    read: async () => {
      const bytes = await source.read();
      if (source.name.endsWith("up_proj.weight"))
        new DataView(bytes.buffer).setFloat32(bytes.byteOffset, Number.NaN, true);
      return bytes;
    },
  }));
  const folder = join(await scratch(), "nf4");
  const error = await failure(() => saveNf4({ ...checkpoint, tensors: () => tensors }, folder));
  expect(error.what).toMatch(/NaN or infinity/);
  expect(error.where.field).toBe("model.layers.0.mlp.up_proj.weight");
});
