import { describe, expect, test } from "vitest";
import { GgufMetadata } from "./metadata.ts";
import { tokenizerFiles } from "./tokenizer.ts";

// Token types: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte.
const byteLevel = {
  "general.architecture": "llama",
  "llama.context_length": 64,
  "tokenizer.ggml.model": "gpt2",
  "tokenizer.ggml.pre": "gpt-2",
  "tokenizer.ggml.tokens": [
    "a",
    "b",
    "ab",
    "<s>",
    "<end>",
    "<turn>",
    "<message>",
    "<pad>",
    "<own>",
    "[PAD9]",
    "[PAD7]",
  ],
  "tokenizer.ggml.token_type": [1, 1, 1, 3, 3, 3, 3, 3, 4, 5, 1],
  "tokenizer.ggml.merges": ["a b"],
  "tokenizer.ggml.bos_token_id": 3,
  "tokenizer.ggml.eos_token_id": 4,
};
const { "tokenizer.ggml.merges": _, "tokenizer.ggml.pre": __, ...shared } = byteLevel;
const sentencePiece = {
  ...shared,
  "tokenizer.ggml.model": "llama",
  "tokenizer.ggml.tokens": ["<unk>", "<s>", "</s>", "<0x0A>", "▁", "a", "<own>"],
  "tokenizer.ggml.token_type": [2, 3, 3, 6, 1, 1, 4],
  "tokenizer.ggml.scores": [0, 0, 0, 0, -1, -2, 0],
  "tokenizer.ggml.bos_token_id": 1,
  "tokenizer.ggml.eos_token_id": 2,
};

function files(base: Record<string, unknown>, changes: Record<string, unknown> = {}) {
  const metadata = Object.fromEntries(Object.entries(changes).map(([key, value]) => [`tokenizer.${key}`, value]));
  const all = tokenizerFiles(new GgufMetadata({ ...base, ...metadata }, "model.gguf"));
  const json = (name: string) => JSON.parse(all[name] as string);
  return {
    names: Object.keys(all),
    tokenizer: json("tokenizer.json"),
    config: json("tokenizer_config.json"),
    generation: json("generation_config.json"),
    template: all["chat_template.jinja"],
  };
}

/** What a text gets before and behind it, as `[<s> A]`. */
const around = ({ tokenizer }: ReturnType<typeof files>) =>
  tokenizer.post_processor?.single.map((part: { SpecialToken?: { id: string } }) => part.SpecialToken?.id ?? "A");

describe("tokens with a part to play", () => {
  test("every token that ends a turn ends a completion", () => {
    expect(files(byteLevel).generation).toEqual({ bos_token_id: 3, eos_token_id: 4, pad_token_id: null });
    const several = { "ggml.eot_token_id": 5, "ggml.eom_token_id": 6, "ggml.padding_token_id": 7 };
    expect(files(byteLevel, several).generation).toEqual({ bos_token_id: 3, eos_token_id: [4, 5, 6], pad_token_id: 7 });
    const same = { "ggml.eot_token_id": 4, "ggml.eom_token_id": 6 };
    expect(files(byteLevel, same).generation.eos_token_id).toEqual([4, 6]);
  });

  test("have their texts in tokenizer_config.json", () => {
    expect(files(byteLevel, { "ggml.padding_token_id": 7, "ggml.unknown_token_id": 0 }).config).toMatchObject({
      bos_token: "<s>",
      eos_token: "<end>",
      pad_token: "<pad>",
      unk_token: "a",
      model_max_length: 64,
    });
    expect(files(byteLevel).config).toMatchObject({ pad_token: null, unk_token: null });
  });

  test("control tokens are special, a user's own are not, and fillers are none", () => {
    const { added_tokens, model } = files(byteLevel).tokenizer;
    const flags = { single_word: false, lstrip: false, rstrip: false, normalized: false };
    expect(added_tokens).toHaveLength(6);
    expect(added_tokens[0]).toEqual({ id: 3, content: "<s>", ...flags, special: true });
    expect(added_tokens[5]).toEqual({ id: 8, content: "<own>", ...flags, special: false });
    // A filler is unused and named as one: another token may be called like it.
    expect(model.vocab["[PAD9]"]).toBeUndefined();
    expect(model.vocab["[PAD7]"]).toBe(10);
  });

  test("of a SentencePiece vocabulary: the unknown one is special, a user's own goes through the normalizer", () => {
    const { added_tokens, model } = files(sentencePiece).tokenizer;
    expect(added_tokens.map(({ content }: { content: string }) => content)).toEqual(["<unk>", "<s>", "</s>", "<own>"]);
    expect(added_tokens[0]).toMatchObject({ special: true, normalized: false });
    expect(added_tokens[3]).toMatchObject({ special: false, normalized: true });
    // By its type, where no key names it.
    expect(model).toMatchObject({ unk_token: "<unk>", fuse_unk: true, byte_fallback: true });
  });
});

describe("what a text gets before and behind it", () => {
  test.each([
    ["llama-bpe", ["<s>", "A"]],
    ["llama3", ["<s>", "A"]],
    ["tekken", ["<s>", "A"]],
    ["qwen2", undefined],
    ["smollm", undefined],
    ["gpt-2", undefined],
  ])("%s, where the file does not say", (pre, wanted) => {
    expect(around(files(byteLevel, { "ggml.pre": pre }))).toEqual(wanted);
  });

  test("BOS for SentencePiece, where the file does not say", () => {
    expect(around(files(sentencePiece))).toEqual(["<s>", "A"]);
  });

  test("what the file says", () => {
    const bos = (value: boolean) => ({ "ggml.add_bos_token": value });
    expect(around(files(byteLevel, { "ggml.pre": "qwen2", ...bos(true) }))).toEqual(["<s>", "A"]);
    expect(around(files(byteLevel, { "ggml.pre": "llama3", ...bos(false) }))).toBeUndefined();
    expect(around(files(sentencePiece, bos(false)))).toBeUndefined();
    expect(around(files(byteLevel, { ...bos(true), "ggml.add_eos_token": true }))).toEqual(["<s>", "A", "<end>"]);
  });

  test("a space before SentencePiece's text, taken off again when it is decoded", () => {
    const strip = { type: "Strip", content: " ", start: 1, stop: 0 };
    const { normalizer, decoder } = files(sentencePiece).tokenizer;
    expect(normalizer.normalizers[0]).toEqual({ type: "Prepend", prepend: "▁" });
    expect(decoder.decoders.at(-1)).toEqual(strip);
    const without = files(sentencePiece, { "ggml.add_space_prefix": false }).tokenizer;
    expect(without.normalizer.normalizers).toHaveLength(1);
    expect(without.decoder.decoders).not.toContainEqual(strip);
  });
});

describe("how a text is split", () => {
  test.each([
    ["llama-bpe", null, true, /\\p\{N\}\{1,3\}/],
    ["qwen2", { type: "NFC" }, false, /\|\\p\{N\}\|/],
    ["tekken", null, true, /\[\\r\\n\/\]\*/],
  ])("by %s", (pre, normalizer, ignoreMerges, split) => {
    const { tokenizer } = files(byteLevel, { "ggml.pre": pre });
    expect(tokenizer.normalizer).toEqual(normalizer);
    expect(tokenizer.model.ignore_merges).toBe(ignoreMerges);
    expect(tokenizer.pre_tokenizer.pretokenizers[0].pattern.Regex).toMatch(split);
  });

  test("by GPT-2's byte level where the file names it or smollm, and by nothing where it names none", () => {
    const gpt2 = files(byteLevel).tokenizer.pre_tokenizer;
    expect(gpt2).toMatchObject({ type: "ByteLevel", use_regex: true });
    expect(files(byteLevel, { "ggml.pre": "smollm" }).tokenizer.pre_tokenizer).toEqual(gpt2);
    expect(() => files(byteLevel, { "ggml.pre": undefined })).toThrow(/not known: "default"/);
  });

  test("merges of tokens that begin with a space", () => {
    const merged = files(byteLevel, { "ggml.merges": ["a b", "  a", "b  "] }).tokenizer.model.merges;
    expect(merged).toEqual([
      ["a", "b"],
      [" ", "a"],
      ["b", " "],
    ]);
    expect(() => files(byteLevel, { "ggml.merges": ["ab"] })).toThrow(/no pair: "ab"/);
  });

  test("equal scores of SentencePiece pieces merge by the ids of whole, left and right", () => {
    const pieces = ["<unk>", "b", "a", "ab", "ba", "aba", "bb", "abb"];
    const { merges } = files(sentencePiece, {
      "ggml.tokens": pieces,
      "ggml.token_type": [2, 1, 1, 1, 1, 1, 1, 1],
      "ggml.scores": [0, 0, 0, -1, -1, -3, -1, -2],
      "ggml.bos_token_id": undefined,
      "ggml.eos_token_id": undefined,
    }).tokenizer.model;
    const pair = (pieces: string) => pieces.split(" ");
    expect(merges).toEqual(["a b", "b a", "b b", "a bb", "ab b", "a ba", "ab a"].map(pair));
  });
});

describe("chat templates", () => {
  test("one is a file of its own", () => {
    const { template, config } = files(byteLevel, { chat_template: "{{ x }}" });
    expect(template).toBe("{{ x }}");
    expect(config.chat_template).toBeUndefined();
    expect(files(byteLevel).names).not.toContain("chat_template.jinja");
  });

  test("several are the list that tokenizer_config.json holds, the plain one named default", () => {
    const named = { "chat_template.tool_use": "tools", "chat_template.rag": "rag" };
    const list = [
      { name: "tool_use", template: "tools" },
      { name: "rag", template: "rag" },
    ];
    expect(files(byteLevel, named).config.chat_template).toEqual(list);
    const both = files(byteLevel, { chat_template: "plain", ...named });
    expect(both.config.chat_template).toEqual([{ name: "default", template: "plain" }, ...list]);
    expect(both.template).toBeUndefined();
  });
});
