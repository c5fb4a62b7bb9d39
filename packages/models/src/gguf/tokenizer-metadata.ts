import { type FileReader, isObject, TemporaError } from "@tempora/errors";
import { parseJsonObject } from "../json-file.ts";
import { type PreTokenizer, preTokenizerJson, preTokenizers } from "./pre-tokenizers.ts";
import { mergesOfScores } from "./sentencepiece.ts";
import { tokenType } from "./tokenizer.ts";
import type { MetadataValue } from "./writer.ts";

type Json = Record<string, unknown>;
type Metadata = Record<string, MetadataValue>;

/** What tokenizer metadata are made from. */
export interface TokenizerSource {
  /** Reads tokenizer.json and the files beside it. */
  read: FileReader;
  /** The model's folder or file, for messages. */
  path: string;
  vocabSize: number;
  /** Ids that end a completion, the tokenizer's EOS among them or not. */
  endTokens: readonly number[];
  /** bos_token_id of config.json, where the tokenizer names none. */
  bosId: number | null;
}

/**
 * The keys tokenizer.* of a GGUF file from the files of a Hugging Face tokenizer.
 * @throws TemporaError for a tokenizer that GGUF cannot describe, or whose way to split text has no name in llama.cpp.
 */
export async function tokenizerMetadata(source: TokenizerSource): Promise<Metadata> {
  const json = await readJson(source, "tokenizer.json");
  if (json === null) throw refusal(source, "The model has no tokenizer.json", "tokenizer.json");
  const config = (await readJson(source, "tokenizer_config.json")) ?? {};
  const model = isObject(json.model) ? json.model : {};
  if (model.type !== "BPE" || !isObject(model.vocab)) {
    throw refusal(source, `A tokenizer of type ${String(model.type)} has no place in a GGUF file`, "model.type");
  }
  const tokenizer: Tokenizer = { source, json, config, model, ids: idsOf(model.vocab, json) };
  const kind = model.byte_fallback === true ? sentencePiece(tokenizer) : byteLevel(tokenizer);
  return { ...kind, ...specialTokens(tokenizer), ...(await chatTemplates(source, config)) };
}

interface Tokenizer {
  source: TokenizerSource;
  json: Json;
  config: Json;
  model: Json;
  ids: ReadonlyMap<string, number>;
}

function refusal(source: TokenizerSource, what: string, field: string): TemporaError {
  return new TemporaError(what, {
    where: { file: source.path, field },
    remedy: "Export a Hugging Face folder, or convert it with llama.cpp's convert_hf_to_gguf.py.",
  });
}

async function readJson(source: TokenizerSource, name: string): Promise<Json | null> {
  const content = await source.read(name);
  return content === null ? null : parseJsonObject(new TextDecoder().decode(content), name, `The file ${name}`);
}

function addedOf(json: Json): Json[] {
  return Array.isArray(json.added_tokens) ? json.added_tokens.filter(isObject) : [];
}

function idsOf(vocab: Json, json: Json): Map<string, number> {
  const ids = new Map(Object.entries(vocab) as [string, number][]);
  for (const { content, id } of addedOf(json)) ids.set(content as string, id as number);
  return ids;
}

function byteLevel(tokenizer: Tokenizer): Metadata {
  const { source, json, model } = tokenizer;
  const pre = preTokenizers.find((known) => splitsAs(json, known));
  if (pre === undefined) {
    throw refusal(source, "The way in which tokenizer.json splits text has no name in llama.cpp", "pre_tokenizer");
  }
  return {
    "tokenizer.ggml.model": { type: "string", value: "gpt2" },
    "tokenizer.ggml.pre": { type: "string", value: pre.names[0] },
    ...tokens(tokenizer),
    "tokenizer.ggml.merges": { type: "strings", value: mergesOf(model).map(([a, b]) => `${solid(a)} ${solid(b)}`) },
  };
}

/** A merge is two tokens around a space, so a space in a token is written as the byte level does. */
function solid(token: string): string {
  return token.replaceAll(" ", "Ġ");
}

/** Whether tokenizer.json normalizes and splits as a known pre-tokenizer does. */
function splitsAs(json: Json, pre: PreTokenizer): boolean {
  const normalizer = simplified(json.normalizer);
  if (JSON.stringify(normalizer) !== JSON.stringify(simplified(pre.normalizer))) return false;
  return JSON.stringify(simplified(json.pre_tokenizer)) === JSON.stringify(simplified(preTokenizerJson(pre)));
}

/** A normalizer or pre-tokenizer as a list of its parts, without what decides no token. */
function simplified(part: unknown): unknown[] {
  if (!isObject(part)) return [];
  const parts = part.pretokenizers ?? part.normalizers;
  if (part.type === "Sequence") return (Array.isArray(parts) ? parts : []).flatMap(simplified);
  const { trim_offsets: _, invert, ...rest } = part;
  const kept = invert === true ? { ...rest, invert } : rest;
  return [Object.entries(kept).sort(([a], [b]) => (a < b ? -1 : 1))];
}

function mergesOf(model: Json): [string, string][] {
  const merges = Array.isArray(model.merges) ? (model.merges as (string | [string, string])[]) : [];
  return merges.map((merge) => {
    if (typeof merge !== "string") return merge;
    const space = merge.indexOf(" ", 1);
    return [merge.slice(0, space), merge.slice(space + 1)];
  });
}

/** Scores in the order of the merges; they must give these very merges back. */
function sentencePiece(tokenizer: Tokenizer): Metadata {
  const { source, json, model, ids } = tokenizer;
  const merges = mergesOf(model);
  const pieces = Object.entries(model.vocab as Record<string, number>).sort(([, a], [, b]) => a - b);
  const rank = new Map<string, number>();
  for (const [left, right] of merges) if (!rank.has(left + right)) rank.set(left + right, rank.size);
  const scoreOf = (piece: string) => -(rank.get(piece) ?? rank.size);
  const names = pieces.map(([piece]) => piece);
  const again = mergesOfScores(names, names.map(scoreOf));
  const known =
    again.length === merges.length && again.every(([a, b], i) => a === merges[i]![0] && b === merges[i]![1]);
  if (!known || (json.pre_tokenizer ?? null) !== null) {
    throw refusal(source, "The merges of tokenizer.json are not those of a SentencePiece vocabulary", "model.merges");
  }
  const scores = Array.from({ length: source.vocabSize }, () => -rank.size);
  for (const [piece, id] of ids) if (id < scores.length) scores[id] = scoreOf(piece);
  return {
    "tokenizer.ggml.model": { type: "string", value: "llama" },
    "tokenizer.ggml.pre": { type: "string", value: "default" },
    ...tokens(tokenizer),
    "tokenizer.ggml.scores": { type: "f32s", value: scores },
    "tokenizer.ggml.add_space_prefix": { type: "bool", value: JSON.stringify(json.normalizer).includes('"Prepend"') },
  };
}

/** Every token by its id, and what kind it is; rows of the embedding without a token get fillers. */
function tokens({ source, json, model, ids }: Tokenizer): Metadata {
  const list = Array.from({ length: source.vocabSize }, (_, id) => `[PAD${id}]`);
  const types = new Array<number>(list.length).fill(tokenType.unused);
  const bytes = model.byte_fallback === true ? /^<0x[0-9A-F]{2}>$/ : null;
  for (const [token, id] of ids) {
    if (id >= list.length) throw refusal(source, `The model has no row for the token ${JSON.stringify(token)}`, token);
    list[id] = token;
    types[id] = bytes?.test(token) ? tokenType.byte : tokenType.normal;
  }
  for (const { id, special } of addedOf(json)) {
    types[id as number] = special === true ? tokenType.control : tokenType.userDefined;
  }
  const unknown = ids.get(model.unk_token as string);
  if (unknown !== undefined) types[unknown] = tokenType.unknown;
  return {
    "tokenizer.ggml.tokens": { type: "strings", value: list },
    "tokenizer.ggml.token_type": { type: "i32s", value: types },
  };
}

/**
 * Ids of BOS, EOS and the like. BOS and EOS are always written: llama.cpp takes others for granted where they are missing
 * (11 for gpt2). A model has one EOS here; further end tokens are written as ends of turn and of message.
 */
function specialTokens({ source, json, config, model, ids }: Tokenizer): Metadata {
  const named = (name: string) => {
    const value = config[name];
    return ids.get((isObject(value) ? value.content : value) as string);
  };
  const eos = named("eos_token") ?? source.endTokens[0];
  const ends = [...new Set([eos, ...source.endTokens])].filter((id) => id !== undefined);
  const bos = named("bos_token") ?? source.bosId ?? ends[0];
  const around = JSON.stringify(json.post_processor ?? null);
  const adds = (name: string) => {
    const value = config[name];
    const token = isObject(value) ? value.content : value;
    return typeof token === "string" && around.includes(`"SpecialToken":{"id":${JSON.stringify(token)}`);
  };
  const id = (name: string, value: number | undefined): Metadata =>
    value === undefined ? {} : { [`tokenizer.ggml.${name}_token_id`]: { type: "u32", value } };
  return {
    ...id("bos", bos),
    ...id("eos", ends[0]),
    ...id("eot", ends[1]),
    ...id("eom", ends[2]),
    ...id("unknown", named("unk_token") ?? ids.get(model.unk_token as string)),
    ...id("padding", named("pad_token")),
    "tokenizer.ggml.add_bos_token": { type: "bool", value: adds("bos_token") },
    "tokenizer.ggml.add_eos_token": { type: "bool", value: adds("eos_token") },
  };
}

async function chatTemplates(source: TokenizerSource, config: Json): Promise<Metadata> {
  const plain = (value: string): Metadata => ({ "tokenizer.chat_template": { type: "string", value } });
  const jinja = await source.read("chat_template.jinja");
  if (jinja !== null) return plain(new TextDecoder().decode(jinja));
  const value = (await readJson(source, "chat_template.json"))?.chat_template ?? config.chat_template ?? null;
  if (typeof value === "string") return plain(value);
  if (!Array.isArray(value)) return {};
  const all: Metadata = {};
  for (const { name, template } of value as { name: string; template: string }[]) {
    Object.assign(all, name === "default" ? plain(template) : {});
    if (name !== "default") all[`tokenizer.chat_template.${name}`] = { type: "string", value: template };
  }
  return all;
}
