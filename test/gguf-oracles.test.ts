import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Engine } from "@tempora/engine";
import { type Checkpoint, openCheckpoint, readSafetensors } from "@tempora/models";
import { oracle, readJson, readLines, scratch } from "@tempora/testing";
import { describe, expect, test } from "vitest";
import { readGguf } from "../packages/models/src/gguf/file.ts";
import { ggufName } from "../packages/models/src/gguf/names.ts";
import { tempora, temporaJson } from "./support/cli.ts";
import { relativeError } from "./support/oracles.ts";

interface Scored {
  prompt_ids: number[];
  completion_ids: number[];
  completion_logprobs: number[];
}

const names = readdirSync(oracle("gguf"))
  .filter((name) => name.endsWith(".gguf"))
  .map((name) => name.slice(0, -".gguf".length));

const quantized = ["llama-mixed", "llama-q4_0", "qwen3-q8_0"];

test("there are models of every architecture that is read", () => {
  for (const architecture of ["llama", "qwen2", "qwen3"]) {
    expect(names.some((name) => name.startsWith(architecture))).toBe(true);
  }
});

test.each(names)("log-probs of %s.gguf are those of transformers, from the file and from its folder", async (name) => {
  const folder = await scratch();
  const file = oracle("gguf", `${name}.gguf`);
  const data = oracle("gguf", `${name}.jsonl`);
  await temporaJson(["export", "--model", file, "--out", join(folder, "hf"), "--type", "f32"]);
  const [own, exported] = [join(folder, "own.jsonl"), join(folder, "exported.jsonl")];
  for (const [model, out] of [
    [file, own],
    [join(folder, "hf"), exported],
  ] as const) {
    await temporaJson(["logprobs", "--model", model, "--data", data, "--out", out, "--dtype", "f32"]);
    expectTrueLogProbs(out, data);
  }
  // What a file is dequantised to is what is computed with it, to the bit.
  expect(readFileSync(own, "utf8")).toBe(readFileSync(exported, "utf8"));
});

function expectTrueLogProbs(out: string, data: string): void {
  const rows = readLines<Scored>(out);
  for (const [i, truth] of readLines<Scored>(data).entries()) {
    const mine = rows[i]!.completion_logprobs;
    expect(mine.length).toBe(truth.completion_logprobs.length);
    const worst = Math.max(...mine.map((value, k) => Math.abs(value - truth.completion_logprobs[k]!)));
    expect(worst).toBeLessThan(1e-4);
  }
}

interface BlockCase {
  type: string;
  id: number;
  /** base64: blocks as a file has them, and the float32 values that the gguf package reads in them. */
  bytes: string;
  values: string;
}

/** A model of the oracles with the blocks at the beginning of a matrix of their type, and that matrix's name. */
async function modelWith({ id, bytes }: BlockCase): Promise<{ file: string; matrix: string }> {
  for (const name of names) {
    const { tensors } = await readGguf(oracle("gguf", `${name}.gguf`));
    // Rows of q and k are permuted, others lie in the file as in a folder.
    const found = [...tensors.values()].find((one) => one.type === id && !/attn_[qk]\./.test(one.name));
    if (found === undefined) continue;
    const content = readFileSync(found.file);
    content.set(Buffer.from(bytes, "base64"), found.offset);
    const file = join(await scratch(), "blocks.gguf");
    writeFileSync(file, content);
    return { file, matrix: found.name };
  }
  throw new Error(`no model of the oracles has a matrix of type ${id}`);
}

test.each(readJson<BlockCase[]>(oracle("gguf", "blocks.json")))(
  "blocks of $type in a file are what its exported folder holds, and what both compute with",
  async (one) => {
    const { file, matrix } = await modelWith(one);
    const folder = join(await scratch(), "hf");
    await temporaJson(["export", "--model", file, "--out", folder, "--type", "f32"]);
    const { tensors } = await readSafetensors(join(folder, "model.safetensors"));
    const held = await [...tensors.values()].find(({ name }) => ggufName(name) === matrix)?.read();
    const wanted = new Float32Array(Uint8Array.from(Buffer.from(one.values, "base64")).buffer);
    const values = new Float32Array(held?.buffer as ArrayBuffer).subarray(0, wanted.length);
    const worst = Math.max(...wanted.map((value, i) => Math.abs(value - values[i]!) - 1e-6 * Math.abs(value)));
    expect(worst).toBeLessThanOrEqual(0);
    const scored = async (model: string) => {
      const out = join(folder, "scored.jsonl");
      const data = oracle("gguf", "llama-f32.jsonl");
      await temporaJson(["logprobs", "--model", model, "--data", data, "--out", out, "--dtype", "f32"]);
      return readFileSync(out, "utf8");
    };
    expect(await scored(file)).toBe(await scored(folder));
  },
);

describe("blocks that stay as the file holds them", () => {
  test.each(quantized)("stand for the numbers of %s.gguf that are decoded", async (name) => {
    const checkpoint = await openCheckpoint(oracle("gguf", `${name}.gguf`));
    using kept = await Engine.load(checkpoint, { dtype: "f32", quantize: "gguf" });
    using decoded = await Engine.load(checkpoint, { dtype: "f32" });
    let blocks = 0;
    for await (const { name: tensor, blocks: held } of checkpoint.tensors()) {
      const [mine, theirs] = [await kept.getParameter(tensor), await decoded.getParameter(tensor)];
      const worst = relativeError(new Float32Array(mine.buffer), new Float32Array(theirs.buffer));
      expect(worst, tensor).toBeLessThan(1e-6);
      if (tensor.startsWith("model.layers.")) blocks += held?.byteLength ?? 0;
    }
    expect(kept.memory().weights).toBeLessThan(0.8 * decoded.memory().weights);
    expect(blocks).toBeGreaterThan(0);
    // Another model's numbers cannot take their place.
    const other = { ...checkpoint, tensors: () => withoutBlocks(checkpoint) };
    await expect(kept.setParameters(other)).rejects.toThrow(/is held as f32; the engine keeps Q/);
    await expect(Engine.load(other, { quantize: "gguf" })).rejects.toThrow("holds no quantized matrices");
  });

  test.each(quantized)("give the log-probs of transformers for %s.gguf", async (name) => {
    const [out, data] = [join(await scratch(), "logprobs.jsonl"), oracle("gguf", `${name}.jsonl`)];
    const model = ["--model", oracle("gguf", `${name}.gguf`), "--quantize", "gguf", "--dtype", "f32"];
    await temporaJson(["logprobs", ...model, "--data", data, "--out", out]);
    expectTrueLogProbs(out, data);
  });

  test("carry an adapter, which is merged into what they stand for", async () => {
    const folder = await scratch();
    const data = oracle("gguf", "llama-mixed.jsonl");
    const model = ["--model", oracle("gguf", "llama-mixed.gguf"), "--quantize", "gguf", "--dtype", "f32"];
    const [adapter, merged] = [join(folder, "adapter"), join(folder, "merged")];
    const before = readFileSync(oracle("gguf", "llama-mixed.gguf"));
    await temporaJson(["sft", ...model, "--data", data, "--out", adapter, "--lora-rank", "4", "--lr", "1e-2"]);
    await temporaJson(["merge", ...model, "--adapter", adapter, "--out", merged]);
    const score = async (name: string, ...of: string[]) => {
      const out = join(folder, `${name}.jsonl`);
      await temporaJson(["logprobs", "--data", data, "--out", out, ...of]);
      return readLines<Scored>(out).flatMap((row) => row.completion_logprobs);
    };
    const apart = await score("apart", ...model, "--adapter", adapter);
    const together = await score("together", "--model", merged);
    const worst = Math.max(...apart.map((value, i) => Math.abs(value - together[i]!)));
    expect(worst).toBeLessThan(1e-3);
    expect(await score("untrained", ...model)).not.toEqual(apart);
    expect(readFileSync(oracle("gguf", "llama-mixed.gguf")).equals(before)).toBe(true);
  });

  test("are refused where a model has none, and in a run, which keeps its start decoded", async () => {
    const [data, out] = [oracle("gguf", "llama-mixed.jsonl"), join(await scratch(), "out")];
    const scored = await tempora([
      ...["logprobs", "--model", oracle("llama", "reference"), "--data", data, "--out", out, "--quantize", "gguf"],
    ]);
    expect(scored.stderr).toContain("holds no quantized matrices that could stay as they are");
    const run = await tempora([
      ...["train", "--model", oracle("gguf", "llama-mixed.gguf"), "--prompts", data, "--lora-rank", "4"],
      ...["--set", "engine.quantize=gguf"],
    ]);
    expect(run.stderr).toContain("A run keeps a decoded copy of the GGUF file");
  });
});

async function* withoutBlocks(checkpoint: Checkpoint) {
  for await (const { blocks: _, ...tensor } of checkpoint.tensors()) yield tensor;
}
