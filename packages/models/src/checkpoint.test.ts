import { readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { parameterShapes } from "@tempora/engine/model";
import { editJson, failure, families, olderReference, oracle, scratch, vocabularySize } from "@tempora/testing";
import { describe, expect, test } from "vitest";
import { checkpointHash, openCheckpoint } from "./checkpoint.ts";
import { readSafetensors } from "./safetensors.ts";
import { type NamedTensor, writeSafetensors } from "./safetensors-writer.ts";
import { copyFolder, copyOracle } from "./testing.ts";

/** Every tensor of a single-file checkpoint, in memory. */
async function tensorsOf(folder: string): Promise<NamedTensor[]> {
  const { tensors } = await readSafetensors(join(folder, "model.safetensors"));
  const list: NamedTensor[] = [];
  for (const { name, shape, read } of tensors.values()) list.push({ name, dtype: "f32", shape, bytes: await read() });
  return list;
}

/** A copy of llama/policy with its tensors changed. */
async function changed(
  edit: (tensors: NamedTensor[]) => NamedTensor[],
  family: string = "llama",
): Promise<{ folder: string; weights: string }> {
  const folder = await copyOracle(family, "policy");
  const weights = join(folder, "model.safetensors");
  await writeSafetensors(weights, edit(await tensorsOf(folder)));
  return { folder, weights };
}

const vector = (name: string, length: number): NamedTensor => ({
  name,
  dtype: "f32",
  shape: [length],
  bytes: new Uint8Array(4 * length),
});

describe("oracle checkpoints", () => {
  test.each(families)("%s: policy, reference and its bf16 shards open with every parameter", async (family) => {
    for (const [folder, dtype] of [
      [oracle(family, "policy"), "f32"],
      [oracle(family, "reference"), "f32"],
      [olderReference(family), "bf16"],
    ] as const) {
      const checkpoint = await openCheckpoint(folder);
      expect(checkpoint).toMatchObject({ dtype, endTokens: [2], name: folder });
      expect(checkpoint.generation).toMatchObject({ eos_token_id: 2 });
      const tensors = await Array.fromAsync(checkpoint.tensors());
      const shapes = parameterShapes(checkpoint.config);
      expect(tensors.map(({ name, shape }) => ({ name, shape }))).toEqual(
        shapes.map(({ name, shape }) => ({ name, shape })),
      );
      const bytes = await tensors[0]!.read();
      expect(bytes.byteLength).toBe(vocabularySize * 64 * (dtype === "f32" ? 4 : 2));
    }
  });

  test("the shards hold the reference, rounded to bf16", async () => {
    const [full, half] = await Promise.all(
      [oracle("qwen2", "reference"), olderReference("qwen2")].map(async (folder) => {
        const tensors = await Array.fromAsync((await openCheckpoint(folder)).tensors());
        return tensors.find(({ name }) => name === "model.layers.1.self_attn.q_proj.bias")!.read();
      }),
    );
    const wide = new Float32Array(full!.buffer, full!.byteOffset, full!.byteLength / 4);
    const upper = new Uint16Array(half!.buffer, half!.byteOffset, half!.byteLength / 2);
    const narrow = Array.from(upper, (bits) => new Float32Array(Uint32Array.of(bits << 16).buffer)[0]!);
    expect(narrow).toHaveLength(wide.length);
    narrow.forEach((value, i) => {
      expect(Math.abs(value - wide[i]!)).toBeLessThanOrEqual(Math.abs(wide[i]!) / 256);
    });
  });
});

describe("what a checkpoint may hold besides its parameters", () => {
  test("rotary buffers of old versions are passed over", async () => {
    const { folder } = await changed((tensors) => [
      ...tensors,
      vector("model.layers.0.self_attn.rotary_emb.inv_freq", 8),
      vector("model.rotary_emb.inv_freq", 8),
    ]);
    expect((await openCheckpoint(folder)).config.layers).toBe(2);
  });

  test("a stored head is passed over when the head is tied and it equals the embedding", async () => {
    const { folder } = await changed((tensors) => {
      const embedding = tensors.find(({ name }) => name === "model.embed_tokens.weight")!;
      return [...tensors, { ...embedding, name: "lm_head.weight" }];
    }, "llama3");
    const names = (await Array.fromAsync((await openCheckpoint(folder)).tensors())).map(({ name }) => name);
    expect(names).not.toContain("lm_head.weight");
  });

  test("a stored head that differs from the embedding it should be tied to is refused, as it would not be tied", async () => {
    const { folder, weights } = await changed((tensors) => {
      const embedding = tensors.find(({ name }) => name === "model.embed_tokens.weight")!;
      const bytes = embedding.bytes.slice();
      bytes[bytes.length - 1]! ^= 1;
      return [...tensors, { ...embedding, name: "lm_head.weight", bytes }];
    }, "llama3");
    const error = await failure(() => openCheckpoint(folder));
    expect(error.what).toContain("the checkpoint stores a different one");
    expect(error.where).toEqual({ file: weights, field: "lm_head.weight" });
    expect(error.remedy).toContain('"tie_word_embeddings": false');
  });

  test("anything else is refused by name", async () => {
    const { folder, weights } = await changed((tensors) => [...tensors, vector("model.layers.0.mlp.up_proj.bias", 3)]);
    const error = await failure(() => openCheckpoint(folder));
    expect(error.what).toBe(
      "The checkpoint has 1 tensors that its config.json does not account for: model.layers.0.mlp.up_proj.bias",
    );
    expect(error.where).toEqual({ file: weights, field: "model.layers.0.mlp.up_proj.bias" });
  });
});

describe("faults of a checkpoint are named", () => {
  test("a missing tensor", async () => {
    const { folder } = await changed((tensors) => tensors.filter(({ name }) => name !== "model.norm.weight"));
    expect((await failure(() => openCheckpoint(folder))).message).toBe(
      `The checkpoint lacks the tensor model.norm.weight of shape [64] (${folder}, field model.norm.weight). ` +
        "Take the config.json that belongs to these weights, or fetch the checkpoint again.",
    );
  });

  test("a tensor of another shape", async () => {
    const { folder, weights } = await changed((tensors) =>
      tensors.map((tensor) => (tensor.name === "model.norm.weight" ? vector(tensor.name, 32) : tensor)),
    );
    const error = await failure(() => openCheckpoint(folder));
    expect(error.what).toBe("This tensor has shape [32], config.json asks for [64]");
    expect(error.where).toEqual({ file: weights, field: "model.norm.weight" });
  });

  test("another vocabulary size in config.json", async () => {
    const folder = await copyOracle("llama", "policy");
    editJson(join(folder, "config.json"), (config) => {
      config.vocab_size = vocabularySize + 1;
    });
    expect((await failure(() => openCheckpoint(folder))).what).toBe(
      `This tensor has shape [${vocabularySize}, 64], config.json asks for [${vocabularySize + 1}, 64]`,
    );
  });

  test("an element type that the engine does not compute in", async () => {
    const folder = await copyOracle("llama", "policy");
    const weights = join(folder, "model.safetensors");
    const bytes = await readFile(weights);
    const header = bytes.subarray(8, 8 + Number(bytes.readBigUInt64LE(0))).toString();
    // The same number of bytes as F32, so that only the type is at fault.
    bytes.write(header.replace('"dtype":"F32"', '"dtype":"U32"'), 8);
    await writeFile(weights, bytes);
    const error = await failure(() => openCheckpoint(folder));
    expect(error.what).toMatch(/^This tensor is U32; F32, F16 and BF16 are read$/);
    expect(error.remedy).toContain("save_pretrained(out)");
  });

  test("a truncated file, with the first tensor that is cut", async () => {
    const folder = await copyOracle("llama", "policy");
    const weights = join(folder, "model.safetensors");
    await writeFile(weights, (await readFile(weights)).subarray(0, -10));
    const error = await failure(() => openCheckpoint(folder));
    expect(error.what).toMatch(/^The file is truncated: this tensor ends at byte/);
    expect(error.where).toEqual({ file: weights, field: "model.norm.weight" });
  });

  test("no weights at all, and pickled ones", async () => {
    const folder = await copyOracle("llama", "policy");
    await rm(join(folder, "model.safetensors"));
    const none = await failure(() => openCheckpoint(folder));
    expect(none.what).toBe("The folder has neither model.safetensors nor model.safetensors.index.json");
    await writeFile(join(folder, "pytorch_model.bin"), "");
    expect((await failure(() => openCheckpoint(folder))).remedy).toContain("save_pretrained it again");
  });

  test("a folder that is not there, or a file", async () => {
    const folder = await scratch();
    const absent = join(folder, "absent");
    expect((await failure(() => openCheckpoint(absent))).message).toBe(
      `Cannot open the checkpoint: it does not exist (${absent}). Check the path.`,
    );
    await writeFile(join(folder, "file"), "");
    expect((await failure(() => openCheckpoint(join(folder, "file")))).what).toContain("this is another file");
  });

  test("end tokens of generation_config.json and config.json are joined", async () => {
    const folder = await copyOracle("llama", "policy");
    editJson(join(folder, "generation_config.json"), (config) => {
      config.eos_token_id = [9, 4];
    });
    expect((await openCheckpoint(folder)).endTokens).toEqual([2, 4, 9]);
  });

  test("end tokens that are no ids", async () => {
    const folder = await copyOracle("llama", "policy");
    editJson(join(folder, "generation_config.json"), (config) => {
      config.eos_token_id = ["</s>"];
    });
    const error = await failure(() => openCheckpoint(folder));
    expect(error.what).toBe('eos_token_id must be a token id or a list of them, not ["</s>"]');
    expect(error.where.file).toBe(join(folder, "generation_config.json"));
  });
});

describe("faults of sharded checkpoints are named", () => {
  const index = "model.safetensors.index.json";
  const sharded = () => copyFolder(olderReference("mistral"));

  test("a missing shard, with a tensor it holds", async () => {
    const folder = await sharded();
    const shard = join(folder, "model-00002-of-00003.safetensors");
    await rm(shard);
    const error = await failure(() => openCheckpoint(folder));
    expect(error.what).toMatch(
      /^The shard model-00002-of-00003.safetensors is missing; it holds model\.\S+ among others$/,
    );
    expect(error.where).toEqual({ file: shard });
  });

  test("a tensor that its shard lacks", async () => {
    const folder = await sharded();
    editJson(join(folder, index), (value) => {
      (value.weight_map as Record<string, string>).phantom = "model-00001-of-00003.safetensors";
    });
    const error = await failure(() => openCheckpoint(folder));
    expect(error.what).toBe(`${index} puts this tensor into model-00001-of-00003.safetensors, which lacks it`);
    expect(error.where.field).toBe("phantom");
  });

  test("a tensor in another shard than the index says, or in none", async () => {
    const folder = await sharded();
    const edit = (change: (map: Record<string, string>) => void) =>
      editJson(join(folder, index), (value) => change(value.weight_map as Record<string, string>));
    await edit((map) => {
      map["model.norm.weight"] = "model-00001-of-00003.safetensors";
    });
    const moved = await failure(() => openCheckpoint(folder));
    expect(moved.what).toMatch(
      /^This tensor lies in model-0000\d-of-00003.safetensors, but .* puts it into model-00001/,
    );
    await edit((map) => {
      delete map["model.norm.weight"];
    });
    expect((await failure(() => openCheckpoint(folder))).what).toMatch(/but .* does not list it$/);
  });

  test("shards swapped with one another", async () => {
    const folder = await sharded();
    const path = (n: number) => join(folder, `model-0000${n}-of-00003.safetensors`);
    await rename(path(1), path(9));
    await rename(path(2), path(1));
    await rename(path(9), path(2));
    expect((await failure(() => openCheckpoint(folder))).remedy).toContain("they belong to different checkpoints");
  });

  test("an index without a map, and one that leads out of the folder", async () => {
    const folder = await sharded();
    editJson(join(folder, index), (value) => {
      value.weight_map = { "model.norm.weight": "../other.safetensors" };
    });
    expect((await failure(() => openCheckpoint(folder))).what).toBe('Not the name of a shard: "../other.safetensors"');
    await writeFile(join(folder, index), "{}");
    expect((await failure(() => openCheckpoint(folder))).what).toBe("The index has no weight_map");
  });
});

describe("checkpointHash", () => {
  test("follows weights, config and tokenizer, and nothing else", async () => {
    const folder = await copyOracle("llama", "policy");
    const original = await checkpointHash(folder);
    expect(original).toMatch(/^[0-9a-f]{64}$/);
    expect(original).toBe(await checkpointHash(oracle("llama", "policy")));
    editJson(join(folder, "config.json"), (config) => {
      config.transformers_version = "9";
    });
    expect(await checkpointHash(folder)).toBe(original);
    editJson(join(folder, "config.json"), (config) => {
      config.rms_norm_eps = 1e-6;
    });
    const other = await checkpointHash(folder);
    expect(other).not.toBe(original);
    await writeFile(join(folder, "chat_template.jinja"), "{{ messages }}");
    expect(await checkpointHash(folder)).not.toBe(other);
    expect(await checkpointHash(oracle("llama", "reference"))).not.toBe(original);
  });
});
