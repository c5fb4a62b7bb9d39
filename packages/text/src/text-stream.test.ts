import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { byteNames, scratch } from "@tempora/testing";
import { describe, expect, test } from "vitest";
import { TextStream } from "./text-stream.ts";
import { Tokenizer } from "./tokenizer.ts";

const texts = [
  "Hello, world",
  "two  spaces ",
  "日本語 and 👩‍👩‍👧‍👦🇩🇪",
  "e\u0301 नमस्ते",
  "",
  "a\n\nb\t",
  "l'été, don't.",
];

interface Setting {
  vocab: Record<string, number>;
  decoder: object;
  preTokenizer: object | null;
  normalizer: object | null;
  byteFallback: boolean;
}

const byteLevel: Setting = {
  vocab: Object.fromEntries(byteNames().map((name, id) => [name, id])),
  decoder: { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true },
  preTokenizer: { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true },
  normalizer: null,
  byteFallback: false,
};

/** As Llama 2's: a space in front of every text, bytes for what has no piece. */
const sentencePiece: Setting = {
  vocab: Object.fromEntries(
    [
      ...Array.from({ length: 256 }, (_, byte) => `<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`),
      ..."▁abcdefghijklmnopqrstuvwxyzHé,.'日".split(""),
    ].map((name, id) => [name, id]),
  ),
  decoder: {
    type: "Sequence",
    decoders: [
      { type: "Replace", pattern: { String: "▁" }, content: " " },
      { type: "ByteFallback" },
      { type: "Fuse" },
      { type: "Strip", content: " ", start: 1, stop: 0 },
    ],
  },
  preTokenizer: null,
  normalizer: {
    type: "Sequence",
    normalizers: [
      { type: "Prepend", prepend: "▁" },
      { type: "Replace", pattern: { String: " " }, content: "▁" },
    ],
  },
  byteFallback: true,
};

async function tokenizerOf({ vocab, decoder, preTokenizer, normalizer, byteFallback }: Setting): Promise<Tokenizer> {
  const folder = await scratch();
  const file = {
    version: "1.0",
    added_tokens: [],
    normalizer,
    pre_tokenizer: preTokenizer,
    post_processor: null,
    decoder,
    model: { type: "BPE", vocab, merges: [], byte_fallback: byteFallback, unk_token: null },
  };
  await writeFile(join(folder, "tokenizer.json"), JSON.stringify(file));
  return Tokenizer.load(folder);
}

const settings: [string, Setting][] = [
  ["byte-level", byteLevel],
  ["SentencePiece's", sentencePiece],
];

describe.each(settings)("text in pieces, %s", (_, setting) => {
  test.each(texts)("%j comes out whole, no character broken", async (text) => {
    const tokenizer = await tokenizerOf(setting);
    const stream = new TextStream(tokenizer);
    const pieces = [...tokenizer.encode(text).map((id) => stream.push(id)), stream.end()];
    expect(pieces.join("")).toBe(tokenizer.decode(tokenizer.encode(text)));
    expect(pieces.join("")).toBe(text);
    for (const piece of pieces) expect(piece).not.toContain("\uFFFD");
  });

  test("bytes that are no character come out as they decode, and what follows them whole", async () => {
    const tokenizer = await tokenizerOf(setting);
    const random = (seed: number, i: number) =>
      Math.abs(Math.imul(i + 1, 7919 * seed) ^ Math.imul(seed, 104_729)) % 256;
    for (let seed = 1; seed < 200; seed++) {
      const bytes = Array.from({ length: 40 }, (_, i) => random(seed, i));
      if (setting === sentencePiece) bytes.unshift(...tokenizer.encode("a"));
      const ids = [...bytes, 0xff, 0xf0, 0x98, 0xff, 0xff, 0xff, ...tokenizer.encode("Hé日")];
      const stream = new TextStream(tokenizer);
      expect(ids.map((id) => stream.push(id)).join("") + stream.end()).toBe(tokenizer.decode(ids));
    }
  });

  test("a text that ends within a character ends in U+FFFD, as its decoding does", async () => {
    const tokenizer = await tokenizerOf(setting);
    const stream = new TextStream(tokenizer);
    const ids = tokenizer.encode("a日b").slice(0, -2);
    const cut = setting === byteLevel ? ids : [...ids.slice(0, -1), 0xe6];
    expect(cut.map((id) => stream.push(id)).join("") + stream.end()).toBe(tokenizer.decode(cut));
  });

  test("what a token adds to a text keeps its space", async () => {
    const tokenizer = await tokenizerOf(setting);
    const ids = tokenizer.encode("a b");
    expect(ids.slice(-3).map((id) => tokenizer.tokenText(id))).toEqual(["a", " ", "b"]);
    expect(tokenizer.tokenText(0xe6)).toBe("\uFFFD");
    expect(tokenizer.tokenText(99_999)).toBe("");
  });
});
