import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { editJson, failure, oracle, scratch } from "@tempora/testing";
import { describe, expect, test } from "vitest";
import { openCheckpoint } from "../checkpoint.ts";
import { copyOracle } from "../testing.ts";
import { readGguf } from "./file.ts";
import { saveGguf } from "./save.ts";
import { tinyLayout, tinyMetadata, writeTiny } from "./testing.ts";
import type { MetadataValue } from "./writer.ts";

const options = { type: "F16", name: "A model" } as const;

async function saved(family: string): Promise<string> {
  const file = join(await scratch(), "model.gguf");
  await saveGguf(await openCheckpoint(oracle(family, "policy")), file, options);
  return file;
}

describe("a written GGUF file", () => {
  test("says all that llama.cpp asks for", async () => {
    const { metadata, tensors } = await readGguf(await saved("llama3"));
    expect(metadata.string("general.architecture")).toBe("llama");
    expect(metadata.string("general.name")).toBe("A model");
    expect(metadata.number("general.file_type")).toBe(1);
    expect(metadata.number("general.quantization_version")).toBe(2);
    for (const key of ["context_length", "block_count", "attention.head_count_kv", "rope.freq_base", "vocab_size"]) {
      expect(metadata.number(`llama.${key}`), key).toBeGreaterThan(0);
    }
    expect(metadata.string("tokenizer.ggml.pre")).toBe("gpt-2");
    for (const name of ["bos", "eos"]) expect(metadata.has(`tokenizer.ggml.${name}_token_id`)).toBe(true);
    expect(metadata.string("tokenizer.chat_template")).toBe(
      await readFile(oracle("llama3", "policy", "chat_template.jinja"), "utf8"),
    );
    expect(tensors.get("rope_freqs.weight")).toMatchObject({ type: 0, shape: [8] });
    const types = [...tensors.values()].map(({ shape, type }) => `${shape.length}-D ${type}`);
    expect(new Set(types)).toEqual(new Set(["1-D 0", "2-D 1"]));
  });

  test.each(["llama", "qwen2"])("of %s gives the very tokenizer back", async (family) => {
    const { companion } = await openCheckpoint(await saved(family));
    const read = async (from: typeof companion) =>
      JSON.parse(new TextDecoder().decode((await from("tokenizer.json")) ?? undefined));
    const [mine, theirs] = [
      await read(companion),
      await read((await openCheckpoint(oracle(family, "policy"))).companion),
    ];
    expect(mine.model).toEqual(theirs.model);
    expect(mine.pre_tokenizer).toEqual(theirs.pre_tokenizer);
    expect(mine.added_tokens).toEqual(theirs.added_tokens);
  });

  test("of a vocabulary with scores splits text as before", async () => {
    const folder = await scratch();
    const [first, second] = [join(folder, "first.gguf"), join(folder, "second.gguf")];
    await writeTiny(
      first,
      scored(),
      tinyLayout.map((one) => (one.shape[0] === 4 ? { ...one, shape: [11, 32] } : one)),
    );
    const checkpoint = await openCheckpoint(first);
    await saveGguf(checkpoint, second, options);
    const again = await openCheckpoint(second);
    expect(await again.companion("tokenizer.json")).toEqual(await checkpoint.companion("tokenizer.json"));
    const { model, normalizer } = JSON.parse(new TextDecoder().decode((await again.companion("tokenizer.json"))!));
    expect(model).toMatchObject({
      byte_fallback: true,
      unk_token: "<unk>",
      merges: [
        ["a", "b"],
        ["▁", "ab"],
        ["▁a", "b"],
        ["▁", "a"],
      ],
    });
    expect(normalizer.normalizers[0]).toEqual({ type: "Prepend", prepend: "▁" });
  });

  test("says where llama.cpp will differ", async () => {
    const checkpoint = await openCheckpoint(oracle("mistral", "policy"));
    const file = join(await scratch(), "mistral.gguf");
    expect(await saveGguf(checkpoint, file, options)).toEqual([
      expect.stringMatching(/sliding window.*beyond 24 tokens/),
    ]);
    expect((await openCheckpoint(file)).config).toEqual(checkpoint.config);
  });
});

/** A SentencePiece vocabulary with scores. */
function scored(): Record<string, MetadataValue> {
  const { "tokenizer.ggml.merges": _, "tokenizer.ggml.pre": __, ...metadata } = tinyMetadata();
  const pieces = ["<unk>", "<s>", "</s>", "<0x0A>", "▁", "a", "b", "ab", "▁ab", "▁a", "[PAD10]"];
  return {
    ...metadata,
    "tokenizer.ggml.model": { type: "string", value: "llama" },
    "tokenizer.ggml.tokens": { type: "strings", value: pieces },
    "tokenizer.ggml.token_type": { type: "i32s", value: [2, 3, 3, 6, 1, 1, 1, 1, 1, 1, 5] },
    "tokenizer.ggml.scores": { type: "f32s", value: [0, 0, 0, 0, -9, -9, -9, -1, -2, -3, 0] },
    "tokenizer.ggml.bos_token_id": { type: "u32", value: 1 },
    "tokenizer.ggml.eos_token_id": { type: "u32", value: 2 },
    "tokenizer.ggml.unknown_token_id": { type: "u32", value: 0 },
  };
}

describe("what GGUF has no place for is refused, and nothing is written", () => {
  async function refused(edit: (folder: string) => void | Promise<void>, family = "llama"): Promise<string> {
    const folder = await copyOracle(family, "policy");
    await edit(folder);
    const file = join(await scratch(), "out.gguf");
    const error = await failure(async () => saveGguf(await openCheckpoint(folder), file, options));
    expect(existsSync(file) || existsSync(`${file}.partial`)).toBe(false);
    return error.message;
  }

  test("a tokenizer of another kind, or one that splits text its own way", async () => {
    const edit = (change: (tokenizer: Record<string, unknown>) => void) => (folder: string) =>
      editJson(join(folder, "tokenizer.json"), change);
    expect(await refused(edit((json) => (json.model = { type: "WordLevel", vocab: {} })))).toMatch(
      /type WordLevel has no place in a GGUF file.*convert_hf_to_gguf/,
    );
    expect(await refused(edit((json) => (json.pre_tokenizer = { type: "Whitespace" })))).toMatch(
      /has no name in llama.cpp/,
    );
    expect(await refused(edit((json) => (json.normalizer = { type: "NFKC" })))).toMatch(/has no name in llama.cpp/);
  });

  test("llama3 rope scaling in a Qwen", async () => {
    const scaling = {
      rope_type: "llama3",
      factor: 8,
      low_freq_factor: 1,
      high_freq_factor: 4,
      original_max_position_embeddings: 64,
    };
    const edit = (folder: string) =>
      editJson(join(folder, "config.json"), (config) => {
        config.rope_parameters = { rope_theta: 10_000, ...scaling };
      });
    expect(await refused(edit, "qwen2")).toMatch(/does not compute llama3 rope scaling in the architecture qwen2/);
  });

  test("weights that end before their time leave no file", async () => {
    const file = join(await scratch(), "out.gguf");
    const checkpoint = await openCheckpoint(oracle("llama", "policy"));
    const sources = await Array.fromAsync(checkpoint.tensors());
    const short = { ...checkpoint, tensors: () => sources.slice(1) };
    expect((await failure(() => saveGguf(short, file, options))).message).toMatch(/never given/);
    expect(existsSync(file) || existsSync(`${file}.partial`)).toBe(false);
  });
});
