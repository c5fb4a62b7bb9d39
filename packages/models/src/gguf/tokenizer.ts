import type { GgufMetadata } from "./metadata.ts";
import { type PreTokenizer, preTokenizerJson, preTokenizerNamed, preTokenizers } from "./pre-tokenizers.ts";
import { mergesOfScores } from "./sentencepiece.ts";

type Json = Record<string, unknown>;

/** Numbers of tokenizer.ggml.token_type (llama.h: llama_token_type). */
export const tokenType = { normal: 1, unknown: 2, control: 3, userDefined: 4, unused: 5, byte: 6 } as const;

/** Ids of the tokens with a part to play; null for those that the file does not name. */
export interface SpecialIds {
  bos: number | null;
  eos: number | null;
  unknown: number | null;
  padding: number | null;
  /** Every token that ends a turn: EOS, end of turn, end of message. */
  ends: number[];
}

export function specialIds(metadata: GgufMetadata): SpecialIds {
  const id = (name: string) => metadata.optionalNumber(`tokenizer.ggml.${name}_token_id`);
  const ends = [id("eos"), id("eot"), id("eom")].filter((one) => one !== null);
  return { bos: id("bos"), eos: id("eos"), unknown: id("unknown"), padding: id("padding"), ends: [...new Set(ends)] };
}

interface Vocabulary {
  metadata: GgufMetadata;
  tokens: readonly string[];
  types: readonly number[];
  special: SpecialIds;
}

/**
 * The files of a Hugging Face tokenizer from a GGUF file's metadata: tokenizer.json, tokenizer_config.json,
 * generation_config.json and chat_template.jinja, by name.
 * @throws TemporaError for a tokenizer whose way to split text is not known exactly.
 */
export function tokenizerFiles(metadata: GgufMetadata): Record<string, string> {
  const model = metadata.string("tokenizer.ggml.model");
  const tokens = metadata.strings("tokenizer.ggml.tokens");
  const types = metadata.has("tokenizer.ggml.token_type") ? metadata.numbers("tokenizer.ggml.token_type") : [];
  const vocabulary: Vocabulary = { metadata, tokens, types, special: specialIds(metadata) };
  const tokenizer = model === "gpt2" ? byteLevel(vocabulary) : model === "llama" ? sentencePiece(vocabulary) : null;
  if (tokenizer === null) {
    return metadata.fail(
      "tokenizer.ggml.model",
      `names a tokenizer that is not known: "${model}" (known: gpt2, llama)`,
      "Fetch the model as a Hugging Face folder: its tokenizer.json is read as it is.",
    );
  }
  const templates = chatTemplates(metadata);
  const config = { ...tokenizerConfig(vocabulary), ...(typeof templates === "string" ? {} : templates) };
  return {
    "tokenizer.json": text({
      version: "1.0",
      truncation: null,
      padding: null,
      added_tokens: addedTokens(vocabulary, model === "llama"),
      ...tokenizer,
    }),
    "tokenizer_config.json": text(config),
    "generation_config.json": text(generationConfig(vocabulary.special)),
    ...(typeof templates === "string" ? { "chat_template.jinja": templates } : {}),
  };
}

function text(value: Json): string {
  return `${JSON.stringify(value, null, 2)}\n`;
}

function byteLevel(vocabulary: Vocabulary): Json {
  const { metadata } = vocabulary;
  const pre = preTokenizerOf(metadata);
  return {
    normalizer: pre.normalizer,
    pre_tokenizer: preTokenizerJson(pre),
    post_processor: aroundText(vocabulary, pre.addBos),
    decoder: { type: "ByteLevel", add_prefix_space: true, trim_offsets: true, use_regex: true },
    model: {
      type: "BPE",
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: pre.ignoreMerges,
      vocab: vocabOf(vocabulary),
      merges: metadata.strings("tokenizer.ggml.merges").map((merge) => splitMerge(merge, metadata)),
    },
  };
}

function preTokenizerOf(metadata: GgufMetadata): PreTokenizer {
  const name = metadata.optionalString("tokenizer.ggml.pre") ?? "default";
  const known = preTokenizerNamed(name);
  if (known !== undefined) return known;
  const list = preTokenizers.flatMap(({ names }) => names).join(", ");
  return metadata.fail(
    "tokenizer.ggml.pre",
    `names a way to split text that is not known: "${name}" (known: ${list})`,
    "Fetch the model as a Hugging Face folder: its tokenizer.json is read as it is.",
  );
}

function splitMerge(merge: string, metadata: GgufMetadata): [string, string] {
  const space = merge.indexOf(" ", 1);
  if (space < 0)
    return metadata.fail("tokenizer.ggml.merges", `has an entry that is no pair: ${JSON.stringify(merge)}`);
  return [merge.slice(0, space), merge.slice(space + 1)];
}

function sentencePiece(vocabulary: Vocabulary): Json {
  const { metadata, tokens, special } = vocabulary;
  const prefix = metadata.boolean("tokenizer.ggml.add_space_prefix", true);
  const unknown = special.unknown ?? vocabulary.types.indexOf(tokenType.unknown);
  const spaces = { type: "Replace", pattern: { String: " " }, content: "▁" };
  const back = [
    { type: "Replace", pattern: { String: "▁" }, content: " " },
    { type: "ByteFallback" },
    { type: "Fuse" },
  ];
  return {
    normalizer: { type: "Sequence", normalizers: prefix ? [{ type: "Prepend", prepend: "▁" }, spaces] : [spaces] },
    pre_tokenizer: null,
    post_processor: aroundText(vocabulary, true),
    decoder: {
      type: "Sequence",
      decoders: prefix ? [...back, { type: "Strip", content: " ", start: 1, stop: 0 }] : back,
    },
    model: {
      type: "BPE",
      dropout: null,
      unk_token: tokens[unknown] ?? null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: true,
      byte_fallback: true,
      ignore_merges: false,
      vocab: vocabOf(vocabulary),
      merges: mergesOfScores(tokens, metadata.numbers("tokenizer.ggml.scores")),
    },
  };
}

/** Ids by token, without the fillers that only make the embedding's rows a round number. */
function vocabOf({ tokens, types }: Vocabulary): Record<string, number> {
  const entries = tokens.map((token, id) => [token, id] as const);
  return Object.fromEntries(entries.filter(([token, id]) => !isFiller(token, types[id])));
}

function isFiller(token: string, type: number | undefined): boolean {
  return type === tokenType.unused && /^\[PAD\d+\]$/.test(token);
}

/** Tokens that are recognised in a text before it is split. */
function addedTokens({ tokens, types }: Vocabulary, normalized: boolean): Json[] {
  const added: Json[] = [];
  for (const [id, content] of tokens.entries()) {
    const type = types[id];
    const special = type === tokenType.control || type === tokenType.unknown;
    if (!special && type !== tokenType.userDefined) continue;
    const flags = { single_word: false, lstrip: false, rstrip: false, normalized: normalized && !special };
    added.push({ id, content, ...flags, special });
  }
  return added;
}

/** What a text gets before and behind it where special tokens are asked for. */
function aroundText({ metadata, tokens, special }: Vocabulary, addBos: boolean): Json | null {
  const around = { bos: special.bos, eos: special.eos };
  if (!metadata.boolean("tokenizer.ggml.add_bos_token", addBos)) around.bos = null;
  if (!metadata.boolean("tokenizer.ggml.add_eos_token", false)) around.eos = null;
  const used = [around.bos, around.eos].filter((id) => id !== null);
  if (used.length === 0) return null;
  const token = (id: number | null, sequence: number) =>
    id === null ? [] : [{ SpecialToken: { id: tokens[id], type_id: sequence } }];
  const sequence = (name: "A" | "B", number: number) => [
    ...token(around.bos, number),
    { Sequence: { id: name, type_id: number } },
    ...token(around.eos, number),
  ];
  return {
    type: "TemplateProcessing",
    single: sequence("A", 0),
    pair: [...sequence("A", 0), ...sequence("B", 1)],
    special_tokens: Object.fromEntries(
      used.map((id) => [tokens[id], { id: tokens[id], ids: [id], tokens: [tokens[id]] }]),
    ),
  };
}

function tokenizerConfig({ metadata, tokens, special }: Vocabulary): Json {
  const token = (id: number | null) => (id === null ? null : (tokens[id] ?? null));
  const context = metadata.number(`${metadata.string("general.architecture")}.context_length`);
  return {
    bos_token: token(special.bos),
    eos_token: token(special.eos),
    unk_token: token(special.unknown),
    pad_token: token(special.padding),
    clean_up_tokenization_spaces: false,
    model_max_length: context,
    tokenizer_class: "PreTrainedTokenizerFast",
  };
}

function generationConfig({ bos, ends, padding }: SpecialIds): Json {
  return { bos_token_id: bos, eos_token_id: ends.length > 1 ? ends : (ends[0] ?? null), pad_token_id: padding };
}

/** The one template, or a list of named ones as tokenizer_config.json holds them; an empty object for none. */
function chatTemplates(metadata: GgufMetadata): string | Json {
  const prefix = "tokenizer.chat_template.";
  const named = metadata.keys().filter((key) => key.startsWith(prefix));
  const plain = metadata.optionalString("tokenizer.chat_template");
  if (named.length === 0) return plain ?? {};
  const list = named.map((key) => ({ name: key.slice(prefix.length), template: metadata.string(key) }));
  return { chat_template: plain === null ? list : [{ name: "default", template: plain }, ...list] };
}
