import { existsSync } from "node:fs";
import { chmod, mkdir, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { failure, families, olderReference, oracle, scratch } from "@tempora/testing";
import { describe, expect, test } from "vitest";
import { type Checkpoint, checkpointHash, openCheckpoint } from "./checkpoint.ts";
import { newModelConfigJson } from "./config.ts";
import { partialFolder, replacedFolder } from "./layout.ts";
import type { NamedTensor } from "./safetensors-writer.ts";
import { type SaveOptions, saveCheckpoint } from "./save.ts";
import { copyOracle } from "./testing.ts";

async function* loaded(checkpoint: Checkpoint): AsyncGenerator<NamedTensor> {
  for await (const tensor of checkpoint.tensors()) {
    yield { name: tensor.name, dtype: tensor.dtype, shape: tensor.shape, bytes: await tensor.read() };
  }
}

/** Saves a checkpoint again, with some options changed. */
async function saveAgain(source: string, target: string, change: Partial<SaveOptions> = {}): Promise<void> {
  const checkpoint = await openCheckpoint(source);
  const { config, raw, dtype } = checkpoint;
  await saveCheckpoint(target, {
    config,
    raw,
    dtype,
    tensors: loaded(checkpoint),
    companion: checkpoint.companion,
    ...change,
  });
}

describe("a saved checkpoint", () => {
  test.each(families)("%s opens again with the same content, in one file or in shards", async (family) => {
    for (const source of [oracle(family, "policy"), olderReference(family)]) {
      const target = join(await scratch(), "saved");
      for (const maxShardBytes of [5e9, 100_000]) {
        await saveAgain(source, target, { maxShardBytes });
        expect(await checkpointHash(target)).toBe(await checkpointHash(source));
        const names = await readdir(target);
        expect(names.includes("model.safetensors")).toBe(maxShardBytes === 5e9);
        expect(names.includes("model.safetensors.index.json")).toBe(maxShardBytes !== 5e9);
        expect(names).toContain("tokenizer.json");
        expect(names).toContain("generation_config.json");
      }
    }
  });

  test("shards stay within their limit and the index adds up", async () => {
    const target = join(await scratch(), "saved");
    await saveAgain(oracle("llama", "policy"), target, { maxShardBytes: 200_000 });
    const index = JSON.parse(await readFile(join(target, "model.safetensors.index.json"), "utf8"));
    const shards = new Set(Object.values(index.weight_map as Record<string, string>));
    expect([...shards].sort()).toEqual((await readdir(target)).filter((name) => name.endsWith(".safetensors")).sort());
    expect(index.metadata).toEqual({ total_parameters: 94_912, total_size: 4 * 94_912 });
  });

  test("is byte for byte the same when saved twice, and in whatever order the tensors come", async () => {
    const [first, second] = [join(await scratch(), "a"), join(await scratch(), "b")];
    const source = oracle("qwen3", "policy");
    await saveAgain(source, first);
    const backwards = (await Array.fromAsync(loaded(await openCheckpoint(source)))).reverse();
    await saveAgain(source, second, { tensors: backwards });
    for (const name of await readdir(first)) {
      expect(await readFile(join(second, name))).toEqual(await readFile(join(first, name)));
    }
  });

  test("states the element type it has, under both names", async () => {
    const checkpoint = await openCheckpoint(olderReference("llama"));
    const target = join(await scratch(), "saved");
    const { dtype: _, torch_dtype: __, ...raw } = checkpoint.raw;
    await saveAgain(checkpoint.path, target, { raw });
    const written = JSON.parse(await readFile(join(target, "config.json"), "utf8"));
    expect(written).toMatchObject({ dtype: "bfloat16", torch_dtype: "bfloat16" });
    await saveAgain(oracle("llama", "policy"), target, { raw: { ...checkpoint.raw, torch_dtype: "bfloat16" } });
    const corrected = JSON.parse(await readFile(join(target, "config.json"), "utf8"));
    expect(corrected.torch_dtype).toBe("float32");
  });

  test("takes files given as text, which win over companions, and copies read-only ones as ordinary files", async () => {
    const source = await copyOracle("llama", "policy");
    await chmod(join(source, "tokenizer.json"), 0o444);
    const target = join(await scratch(), "deep", "saved");
    await saveAgain(source, target, { files: { "chat_template.jinja": "mine", "notes.txt": "x" } });
    expect(await readFile(join(target, "chat_template.jinja"), "utf8")).toBe("mine");
    expect(await readFile(join(target, "notes.txt"), "utf8")).toBe("x");
    await writeFile(join(target, "tokenizer.json"), "{}");
  });

  test("states in generation_config.json the end tokens that the model has learnt, beside its own", async () => {
    const source = await copyOracle("llama", "policy");
    const target = join(await scratch(), "saved");
    await saveAgain(source, target, { endTokens: [2] });
    expect(await readFile(join(target, "generation_config.json"))).toEqual(
      await readFile(join(source, "generation_config.json")),
    );
    await saveAgain(source, target, { endTokens: [2, 1] });
    expect(await openCheckpoint(target)).toMatchObject({
      endTokens: [1, 2],
      generation: { ...(await openCheckpoint(source)).generation, eos_token_id: [1, 2] },
    });
    await rm(join(source, "generation_config.json"));
    await saveAgain(source, target, { endTokens: [5] });
    expect((await openCheckpoint(target)).generation).toEqual({ eos_token_id: [2, 5] });
  });

  test("a new model's config.json is accepted", async () => {
    const source = oracle("mistral", "policy");
    const { config } = await openCheckpoint(source);
    const target = join(await scratch(), "new");
    await saveAgain(source, target, { raw: newModelConfigJson(config, { eos: 2, pad: 0 }, "f32") });
    expect((await openCheckpoint(target)).config).toEqual(config);
  });
});

describe("saving is whole or not at all", () => {
  async function* breakingOff(source: string, error: Error): AsyncGenerator<NamedTensor> {
    let left = 3;
    for await (const tensor of loaded(await openCheckpoint(source))) {
      if (left-- === 0) throw error;
      yield tensor;
    }
  }

  test("a failure half way leaves the old checkpoint, no trace, and the error as it was", async () => {
    const source = oracle("llama", "policy");
    const target = join(await scratch(), "saved");
    await saveAgain(oracle("llama", "reference"), target);
    const before = await checkpointHash(target);
    const error = new Error("stopped");
    await expect(saveAgain(source, target, { tensors: breakingOff(source, error) })).rejects.toBe(error);
    expect(await checkpointHash(target)).toBe(before);
    expect(await readdir(dirname(target))).toEqual(["saved"]);
  });

  test("what a killed process left behind is swept away by the next save", async () => {
    const target = join(await scratch(), "saved");
    await mkdir(partialFolder(target));
    await writeFile(join(partialFolder(target), "model.safetensors"), "torn");
    await saveAgain(oracle("llama", "policy"), target);
    expect(await readdir(dirname(target))).toEqual(["saved"]);
  });

  test("a kill between the two renames is told on opening and mended on saving", async () => {
    const target = join(await scratch(), "saved");
    await saveAgain(oracle("llama", "policy"), target);
    await rename(target, replacedFolder(target));
    const error = await failure(() => openCheckpoint(target));
    expect(error.what).toContain("saving over it was cut off at the last moment");
    expect(error.remedy).toContain(replacedFolder(target));
    await saveAgain(oracle("llama", "reference"), target);
    expect(await readdir(dirname(target))).toEqual(["saved"]);
    expect(await checkpointHash(target)).toBe(await checkpointHash(oracle("llama", "reference")));
  });

  test("a folder that holds something else is not replaced", async () => {
    const target = await scratch();
    await writeFile(join(target, "thesis.tex"), "years of work");
    const error = await failure(() => saveAgain(oracle("llama", "policy"), target));
    expect(error.message).toBe(
      `The folder holds something else than a checkpoint, so it is not replaced (${target}). Name an empty or a new folder.`,
    );
    expect(existsSync(join(target, "thesis.tex"))).toBe(true);
  });

  test("missing, unknown and doubled tensors are refused by name", async () => {
    const source = oracle("llama", "policy");
    const target = join(await scratch(), "saved");
    const all = await Array.fromAsync(loaded(await openCheckpoint(source)));
    const save = (tensors: NamedTensor[]) => failure(() => saveAgain(source, target, { tensors }));
    expect((await save(all.slice(1))).where.field).toBe("model.embed_tokens.weight");
    expect((await save([...all, all[4]!])).where.field).toBe(all[4]!.name);
    expect((await save([{ ...all[0]!, name: "other" }])).where.field).toBe("other");
    expect(existsSync(target)).toBe(false);
  });

  test("a config.json that describes another model is refused", async () => {
    const { raw } = await openCheckpoint(oracle("llama", "policy"));
    const other = { ...raw, rms_norm_eps: 0.5 };
    const target = join(await scratch(), "saved");
    const error = await failure(() => saveAgain(oracle("llama", "policy"), target, { raw: other }));
    expect(error.message).toBe(
      "The config.json to save describes another model: 0.5 instead of 0.00001 (field normEps). " +
        "Save with the raw config that the model was loaded with.",
    );
  });

  test("a place that cannot be written is named with the reason", async () => {
    const folder = await scratch();
    await writeFile(join(folder, "file"), "");
    const target = join(folder, "file", "saved");
    expect((await failure(() => saveAgain(oracle("llama", "policy"), target))).message).toBe(
      `Cannot save the checkpoint: it is not a folder (${target}). Check the path: a part of it is a file, not a folder.`,
    );
  });
});
