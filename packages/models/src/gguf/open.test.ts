import { createHash } from "node:crypto";
import { readFile, truncate, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { failure, oracle, readJson, scratch } from "@tempora/testing";
import { describe, expect, test } from "vitest";
import { type Checkpoint, openCheckpoint } from "../checkpoint.ts";
import { readFloats } from "../save-copy.ts";
import { ggufName } from "./names.ts";
import { oracleGguf, tensor, tinyLayout, tinyMetadata, writeTiny } from "./testing.ts";
import type { GgufLayout, MetadataValue } from "./writer.ts";

async function valuesOf(checkpoint: Checkpoint): Promise<Map<string, Float32Array>> {
  const values = new Map<string, Float32Array>();
  for await (const source of checkpoint.tensors()) values.set(source.name, await readFloats(source));
  return values;
}

/** A tiny GGUF file with some metadata and tensors changed. */
async function changed(
  edit: (metadata: Record<string, MetadataValue>) => void,
  layout: readonly GgufLayout[] = tinyLayout,
): Promise<string> {
  const metadata = tinyMetadata();
  edit(metadata);
  const file = join(await scratch(), "tiny.gguf");
  await writeTiny(file, metadata, layout);
  return file;
}

describe("a GGUF file", () => {
  test.each(["llama", "llama3", "qwen2", "qwen3", "mistral"])(
    "of %s opens as the model that it was",
    async (family) => {
      const [checkpoint, original] = await Promise.all([
        oracleGguf(family, "F16").then(openCheckpoint),
        openCheckpoint(oracle(family, "policy")),
      ]);
      expect(checkpoint.config).toEqual(original.config);
      expect(checkpoint).toMatchObject({ format: "gguf", dtype: "f32", endTokens: original.endTokens });
      const [read, wanted] = [await valuesOf(checkpoint), await valuesOf(original)];
      expect([...read.keys()]).toEqual([...wanted.keys()]);
      for (const [name, values] of wanted) {
        const worst = Math.max(...values.map((value, i) => Math.abs(value - read.get(name)![i]!)));
        expect(worst, name).toBeLessThan(2e-3);
      }
    },
  );

  test("in Q8_0 has the values that ggml reads in it, to the bit", async () => {
    const hashes = readJson<Record<string, string>>(oracle("gguf", "values.json"));
    const values = await valuesOf(await openCheckpoint(oracle("gguf", "qwen3-q8_0.gguf")));
    const own = [...values].map(([name, list]) => [ggufName(name), createHash("sha256").update(list).digest("hex")]);
    expect(Object.fromEntries(own)).toEqual(hashes);
  });

  test("has rows of q and k in llama.cpp's order, k by its own heads", async () => {
    const checkpoint = await openCheckpoint(await changed(() => {}));
    const values = await valuesOf(checkpoint);
    const rows = (name: string) =>
      Array.from(
        values.get(name)!.filter((_, i) => i % 32 === 0),
        (value) => value / 32,
      );
    // Heads of 8: row 2i + s of the file is row i + 4s of ours.
    const head = [0, 2, 4, 6, 1, 3, 5, 7];
    const heads = (count: number) => Array.from({ length: count }, (_, h) => head.map((row) => 8 * h + row)).flat();
    expect(rows("model.layers.0.self_attn.q_proj.weight")).toEqual(heads(4));
    expect(rows("model.layers.0.self_attn.k_proj.weight")).toEqual(heads(2));
    expect(rows("model.layers.0.self_attn.v_proj.weight")).toEqual(Array.from({ length: 16 }, (_, row) => row));
  });

  test("keeps bf16 as it is, and is a bf16 model though its norms are F32", async () => {
    const checkpoint = await openCheckpoint(await oracleGguf("qwen2", "BF16"));
    expect(checkpoint.dtype).toBe("bf16");
    const sources = await Array.fromAsync(checkpoint.tensors());
    expect(new Set(sources.map(({ shape, dtype }) => `${shape.length} ${dtype}`))).toEqual(
      new Set(["2 bf16", "1 f32"]),
    );
  });

  test("opens by the folder that it lies in alone, but not beside another", async () => {
    const file = await oracleGguf("llama", "Q8_0");
    const folder = dirname(file);
    expect((await openCheckpoint(folder)).config.layers).toBe(2);
    await writeTiny(join(folder, "other.gguf"));
    expect((await failure(() => openCheckpoint(folder))).message).toMatch(
      /several GGUF models: llama.gguf, other.gguf/,
    );
  });

  test("that was split opens by any of its parts, and names the one that is missing", async () => {
    const folder = await scratch();
    const part = (number: number) => join(folder, `tiny-0000${number}-of-00002.gguf`);
    const split: Record<string, MetadataValue> = { "split.count": { type: "u32", value: 2 } };
    await writeTiny(part(1), { ...tinyMetadata(), ...split }, tinyLayout.slice(0, 5));
    expect((await failure(() => openCheckpoint(part(1)))).message).toMatch(/part .* is missing .*00002-of-00002/);
    await writeTiny(part(2), split, tinyLayout.slice(5));
    for (const named of [part(1), part(2), folder]) {
      expect((await valuesOf(await openCheckpoint(named))).size).toBe(tinyLayout.length);
    }
  });

  test("without a key its readers may leave out gets their defaults", async () => {
    const { config } = await openCheckpoint(
      await changed(
        (metadata) => delete metadata["llama.attention.head_count_kv"],
        tinyLayout.map((one) => (/attn_[kv]/.test(one.name) ? tensor(one.name, 32, 32) : one)),
      ),
    );
    expect(config).toMatchObject({ kvHeads: 4, headDim: 8, ropeTheta: 10_000, normEps: 1e-5, tiedHead: true });
  });

  test("with a sliding window is a Mistral", async () => {
    const file = await changed((metadata) => (metadata["llama.attention.sliding_window"] = { type: "u32", value: 16 }));
    expect((await openCheckpoint(file)).config).toMatchObject({ family: "mistral", windows: [16] });
  });
});

describe("what is refused, by name and with what helps", () => {
  const text = (value: string): MetadataValue => ({ type: "string", value });
  const number = (value: number): MetadataValue => ({ type: "u32", value });
  test.each<[string, string, MetadataValue, RegExp]>([
    [
      "another architecture",
      "general.architecture",
      text("gemma3"),
      /gemma3 is not computed.*Choose a Llama.*`trl dpo .*`llama-server -m/,
    ],
    ["experts", "llama.expert_count", number(8), /mixture of experts.*`trl dpo .*`llama-server -m/],
    ["an adapter", "general.type", text("adapter"), /holds an adapter/],
    ["yarn", "llama.rope.scaling.type", text("yarn"), /rope scaling of type "yarn"/],
    ["partial rotation", "llama.rope.dimension_count", number(4), /on a part of each head/],
    ["another tokenizer", "tokenizer.ggml.model", text("bert"), /not known: "bert".*Hugging Face folder/],
    ["another way to split text", "tokenizer.ggml.pre", text("falcon"), /not known: "falcon".*Hugging Face folder/],
    ["a shape that does not fit", "llama.feed_forward_length", number(96), /blk.0.ffn_gate.weight.*fetch|\[96, 32\]/i],
    ["a missing tensor", "llama.block_count", number(2), /is missing.*blk.1/],
  ])("%s", async (_, key, value, message) => {
    const file = await changed((metadata) => (metadata[key] = value));
    const error = await failure(() => openCheckpoint(file));
    expect(error.message).toMatch(message);
    expect(error.where.file).toBe(file);
  });

  test("a tensor that the architecture lacks", async () => {
    const file = await changed(() => {}, [...tinyLayout, tensor("blk.0.ffn_gate_inp.weight", 4, 32)]);
    expect((await failure(() => openCheckpoint(file))).message).toMatch(/1 tensors .*ffn_gate_inp/);
  });

  test.each([
    [10, "Q2_K"],
    [16, "IQ2_XXS"],
    [99, "number 99"],
  ])("element type %i", async (type, name) => {
    const file = await changed(() => {});
    const bytes = await readFile(file);
    const info = bytes.indexOf("token_embd.weight") + "token_embd.weight".length;
    bytes.writeUInt32LE(type, info + 4 + 16);
    await writeFile(file, bytes);
    const { message, where } = await failure(() => openCheckpoint(file));
    expect(message).toMatch(new RegExp(`of type ${name};.*llama-quantize --allow-requantize`));
    expect(where).toEqual({ file, field: "token_embd.weight" });
  });

  test("a file that is cut off, in its tensors or in its header, or is no GGUF file", async () => {
    const file = await changed(() => {});
    await truncate(file, 20_000);
    expect((await failure(() => openCheckpoint(file))).message).toMatch(/truncated: this tensor ends at byte/);
    await truncate(file, 500);
    expect((await failure(() => openCheckpoint(file))).message).toMatch(/header cannot be read: it leads past the end/);
    // Counts and lengths that the file cannot hold are not gone after: found by hostile input.
    for (const [at, what] of [
      [8, "tensors"],
      [16, "metadata"],
      [24, "a key's length"],
    ] as const) {
      const long = await changed(() => {});
      const bytes = await readFile(long);
      bytes.writeBigUInt64LE(2n ** 40n, at);
      await writeFile(long, bytes);
      const { message } = await failure(() => openCheckpoint(long));
      expect(message, what).toMatch(/header cannot be read: it leads past the end/);
    }
    // Nor are more layers than there are tensors: found by hostile input, which made lists of gigabytes.
    const deep = join(await scratch(), "deep.gguf");
    await writeTiny(deep, { ...tinyMetadata(), "llama.block_count": { type: "u32", value: 2 ** 28 } });
    expect((await failure(() => openCheckpoint(deep))).message).toMatch(
      /asks for 268435456 layers, and the file has 11/,
    );
    await writeFile(file, "GGML, an older format");
    expect((await failure(() => openCheckpoint(file))).message).toMatch(/Not a GGUF file/);
    await writeFile(file, Uint8Array.of(0x47, 0x47, 0x55, 0x46, 0, 0, 0, 3));
    expect((await failure(() => openCheckpoint(file))).message).toMatch(/big-endian/);
  });
});
