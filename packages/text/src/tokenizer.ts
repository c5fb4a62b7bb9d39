import { join } from "node:path";
import { Tokenizer as HuggingFaceTokenizer } from "@huggingface/tokenizers";
import { type FileReader, folderReader, isObject, TemporaError } from "@tempora/errors";
import { withWrittenPattern } from "./byte-level.ts";
import { type ChatTemplate, loadChatTemplate } from "./chat-template.ts";
import type { Message } from "./types.ts";

type JsonObject = Record<string, unknown>;

const namedTokens = [
  "bos_token",
  "eos_token",
  "unk_token",
  "sep_token",
  "pad_token",
  "cls_token",
  "mask_token",
] as const;
type NamedToken = (typeof namedTokens)[number];

interface Parts {
  folder: string;
  tokenizer: HuggingFaceTokenizer;
  vocabSize: number;
  special: Partial<Record<NamedToken, string>>;
  cleanUpSpaces: boolean;
  template: ChatTemplate | null;
  /** The same tokenizer without added tokens. Building one takes about a second: most texts need none. */
  buildPlain(): HuggingFaceTokenizer;
}

/** The tokenizer of a checkpoint folder: tokenizer.json, tokenizer_config.json, special_tokens_map.json, chat template. */
export class Tokenizer {
  readonly folder: string;
  /** One more than the greatest token id. A model's vocabulary may be larger. */
  readonly vocabSize: number;
  readonly eosToken: string | null;
  readonly eosId: number | null;
  readonly bosId: number | null;
  readonly padId: number | null;
  readonly unknownId: number | null;
  private readonly tokenizer: HuggingFaceTokenizer;
  private readonly template: ChatTemplate | null;
  private readonly special: Partial<Record<NamedToken, string>>;
  private readonly cleanUpSpaces: boolean;
  /** Ids of the added tokens by their text, the special ones among them. */
  private readonly added: ReadonlyMap<string, number>;
  private readonly addedIds: ReadonlySet<number>;
  private readonly addedPattern: RegExp | null;
  private readonly buildPlain: () => HuggingFaceTokenizer;
  private plain: HuggingFaceTokenizer | null = null;

  private constructor(parts: Parts) {
    this.folder = parts.folder;
    this.tokenizer = parts.tokenizer;
    this.vocabSize = parts.vocabSize;
    this.special = parts.special;
    this.cleanUpSpaces = parts.cleanUpSpaces;
    this.template = parts.template;
    this.eosToken = parts.special.eos_token ?? null;
    this.eosId = this.idOf("eos_token");
    this.bosId = this.idOf("bos_token");
    this.padId = this.idOf("pad_token");
    this.unknownId = this.idOf("unk_token");
    this.buildPlain = parts.buildPlain;
    this.added = new Map([...parts.tokenizer.get_added_tokens_decoder()].map(([id, { content }]) => [content, id]));
    this.addedIds = new Set(this.added.values());
    this.addedPattern = patternOf([...this.added.keys()]);
  }

  /** The tokenizer of a folder. */
  static load(folder: string): Promise<Tokenizer> {
    return Tokenizer.from(folder, folderReader(folder));
  }

  /**
   * A tokenizer of files that need not lie in a folder, such as those that follow from a GGUF file.
   * @param folder What they belong to, for messages.
   */
  static async from(folder: string, read: FileReader): Promise<Tokenizer> {
    const file = join(folder, "tokenizer.json");
    const content = await read("tokenizer.json");
    if (content === null) {
      throw new TemporaError("Cannot read the tokenizer: there is no tokenizer.json", {
        where: { file },
        remedy:
          "Fetch it with the model, or let transformers write it: AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER).",
      });
    }
    const json = parseObject(content, file);
    const [config, map] = (await Promise.all(
      ["tokenizer_config.json", "special_tokens_map.json"].map(async (name) => {
        const text = await read(name);
        return text === null ? {} : parseObject(text, join(folder, name));
      }),
    )) as [JsonObject, JsonObject];
    const special = specialTokens(config, map);
    const template = await loadChatTemplate(folder, config, read);
    const tokenizer = build(json, config, file, addedTokens(json, config, special));
    let vocabSize = 0;
    for (const id of tokenizer.get_vocab().values()) vocabSize = Math.max(vocabSize, id + 1);
    for (const name of ["bos_token", "eos_token"] as const) {
      const token = special[name];
      if (token !== undefined && tokenizer.token_to_id(token) === undefined) {
        throw new TemporaError(`The ${name} ${JSON.stringify(token)} is not in the vocabulary`, {
          where: { file: join(folder, "tokenizer_config.json"), field: name },
          remedy: "Take the tokenizer_config.json that belongs to tokenizer.json.",
        });
      }
    }
    const cleanUpSpaces = cleansUpSpaces(json, config);
    const buildPlain = () => build(json, config, file, []);
    return new Tokenizer({ folder, tokenizer, vocabSize, special, cleanUpSpaces, template, buildPlain });
  }

  /** Token ids of a text. `special` adds what the tokenizer puts around a text of its own, such as BOS. */
  encode(text: string, { special = false }: { special?: boolean } = {}): number[] {
    return this.encodeBy(this.tokenizer, text, special);
  }

  /** Token ids of a text in which nothing is an added token: "<|im_end|>" is read as these characters. */
  encodePlain(text: string): number[] {
    const ids = this.encode(text);
    if (!ids.some((id) => this.addedIds.has(id))) return ids;
    this.plain ??= this.buildPlain();
    const plain = this.encodeBy(this.plain, text, false);
    // A vocabulary of whole words knows the token's text as a word: there is no other spelling than the unknown word.
    return plain.map((id) => (this.addedIds.has(id) ? this.unknownFor(id) : id));
  }

  /** True for special tokens and for others that a text spells as one token, such as <tool_call>. */
  isAdded(id: number): boolean {
    return this.addedIds.has(id);
  }

  /** The text cut at its added tokens, as encoding cuts it. */
  splitAdded(text: string): { text: string; token: number | null }[] {
    const pieces = this.addedPattern === null ? [text] : text.split(this.addedPattern);
    return pieces
      .map((piece, i) => ({ text: piece, token: i % 2 === 0 ? null : (this.added.get(piece) ?? null) }))
      .filter((piece) => piece.text !== "");
  }

  private unknownFor(id: number): number {
    if (this.unknownId !== null) return this.unknownId;
    throw new TemporaError(`The tokenizer cannot spell ${JSON.stringify(this.decode([id], { skipSpecial: false }))}`, {
      where: { file: join(this.folder, "tokenizer.json") },
      remedy: "Take a tokenizer with an unknown token, or leave this text out.",
    });
  }

  private encodeBy(tokenizer: HuggingFaceTokenizer, text: string, special: boolean): number[] {
    if (!text.isWellFormed()) {
      throw new TemporaError("The text holds half of a surrogate pair", {
        remedy: "Give well-formed Unicode.",
      });
    }
    const { ids, tokens } = this.byLibrary(() => tokenizer.encode(text, { add_special_tokens: special }));
    // The library leaves a hole where neither the vocabulary nor an unknown token serves.
    const hole = ids.findIndex((id) => !Number.isInteger(id));
    if (hole >= 0) {
      throw new TemporaError(`The tokenizer has no token for ${JSON.stringify(tokens[hole])}`, {
        where: { file: join(this.folder, "tokenizer.json") },
        remedy: "Take a tokenizer with byte fallback or an unknown token, or leave this text out.",
      });
    }
    return ids;
  }

  /** Text of token ids; ids that no token has, as in a padded vocabulary, give nothing. */
  decode(ids: ArrayLike<number>, { skipSpecial = true }: { skipSpecial?: boolean } = {}): string {
    const known = Array.from(ids).filter((id) => this.tokenizer.id_to_token(id) !== undefined);
    if (known.length === 0) return "";
    return this.byLibrary(() =>
      this.tokenizer.decode(known, {
        skip_special_tokens: skipSpecial,
        clean_up_tokenization_spaces: this.cleanUpSpaces,
      }),
    );
  }

  /** The library looks at parts of tokenizer.json only when it needs them. */
  private byLibrary<Result>(work: () => Result): Result {
    try {
      return work();
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      throw new TemporaError(`The tokenizer fails: ${reason}`, {
        where: { file: join(this.folder, "tokenizer.json") },
        remedy: "Fetch the file again, or save the tokenizer by a current transformers.",
        cause: error,
      });
    }
  }

  /**
   * What one token adds to a text, inside of it: with its leading space, special tokens by their names, U+FFFD for a part of
   * a character. "" for an id that no token has.
   */
  tokenText(id: number): string {
    const text = (ids: number[]) =>
      this.tokenizer.decode(ids, { skip_special_tokens: false, clean_up_tokenization_spaces: false });
    if (this.tokenizer.id_to_token(id) === undefined) return "";
    // Decoders treat the first token of a text differently; the letter in front of it is cut off again.
    const first = this.encode("a").slice(0, 1);
    return first.length === 0 ? text([id]) : text([...first, id]).slice(text(first).length);
  }

  get hasChatTemplate(): boolean {
    return this.template !== null;
  }

  /** Whether the chat template writes the date into a conversation. */
  get asksForDate(): boolean {
    return this.template?.asksForDate ?? false;
  }

  /**
   * The text of a conversation by the model's chat template. Encode it without special tokens: it brings its own.
   * @param variables Further variables of the template, such as `tools` or `enable_thinking`.
   * @param now What a template that asks for the date is told; default: this moment, in local time.
   */
  applyChatTemplate(
    messages: readonly Message[],
    {
      addGenerationPrompt,
      variables = {},
      now = new Date(),
    }: { addGenerationPrompt: boolean; variables?: Readonly<Record<string, unknown>>; now?: Date | undefined },
  ): string {
    if (this.template === null) {
      throw new TemporaError("The tokenizer has no chat template, which conversations need", {
        where: { file: join(this.folder, "tokenizer_config.json"), field: "chat_template" },
        remedy: "Add a chat_template.jinja to the folder, take an instruction-tuned model, or give plain strings.",
      });
    }
    if (messages.length === 0) {
      throw new TemporaError("A conversation has at least one message", { remedy: "Give the turns so far." });
    }
    return this.template.render(messages, addGenerationPrompt, { ...this.special, ...variables }, now);
  }

  private idOf(name: NamedToken): number | null {
    const token = this.special[name];
    return token === undefined ? null : (this.tokenizer.token_to_id(token) ?? null);
  }
}

/** Matches any of the texts, the longest first, and keeps it when it splits; null for none. */
function patternOf(texts: readonly string[]): RegExp | null {
  if (texts.length === 0) return null;
  const longestFirst = [...texts].sort((a, b) => b.length - a.length);
  return new RegExp(`(${longestFirst.map((text) => text.replace(/[.*+?^${}()|[\]\\/]/g, "\\$&")).join("|")})`);
}

function parseObject(content: Uint8Array, file: string): JsonObject {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder().decode(content));
  } catch (error) {
    throw new TemporaError(`Not valid JSON: ${error instanceof Error ? error.message : String(error)}`, {
      where: { file },
      remedy: "Fetch or write the file again.",
      cause: error,
    });
  }
  if (isObject(value)) return value;
  throw new TemporaError("The file must hold a JSON object", {
    where: { file },
    remedy: "Fetch or write the file again.",
  });
}

function specialTokens(config: JsonObject, map: JsonObject): Partial<Record<NamedToken, string>> {
  const tokens: Partial<Record<NamedToken, string>> = {};
  for (const name of namedTokens) {
    const value = config[name] ?? map[name];
    const content = isObject(value) ? value.content : value;
    if (typeof content === "string") tokens[name] = content;
  }
  return tokens;
}

/** As in transformers 5: off unless the config says so, and off for BPE, whose texts it would change ("don 't"). */
function cleansUpSpaces(json: JsonObject, config: JsonObject): boolean {
  if (config.clean_up_tokenization_spaces !== true) return false;
  return !isObject(json.model) || json.model.type !== "BPE";
}

function build(json: JsonObject, config: JsonObject, file: string, added: readonly JsonObject[]): HuggingFaceTokenizer {
  try {
    return new HuggingFaceTokenizer({ ...withWrittenPattern(json), added_tokens: [...added] }, config);
  } catch (error) {
    throw new TemporaError(`Cannot build the tokenizer: ${error instanceof Error ? error.message : String(error)}`, {
      where: { file },
      remedy: "Fetch the file again, or save the tokenizer by a current transformers.",
      cause: error,
    });
  }
}

/**
 * The added tokens of tokenizer.json and, as transformers adds them, those that only tokenizer_config.json lists and the
 * named special tokens that are mere vocabulary entries: otherwise "</s>" in a text would be split into pieces.
 */
function addedTokens(json: JsonObject, config: JsonObject, special: object): JsonObject[] {
  const added = (Array.isArray(json.added_tokens) ? json.added_tokens : []).filter(isObject);
  const known = new Set(added.map((token) => token.content));
  const listed = isObject(config.added_tokens_decoder) ? Object.entries(config.added_tokens_decoder) : [];
  for (const [id, token] of listed) {
    if (isObject(token) && !known.has(token.content)) {
      added.push({ ...token, id: Number(id) });
      known.add(token.content);
    }
  }
  const vocabulary = isObject(json.model) ? json.model.vocab : undefined;
  for (const content of Object.values(special) as string[]) {
    const id = known.has(content) ? undefined : vocabularyId(vocabulary, content);
    if (id === undefined) continue;
    added.push({ id, content, special: true, normalized: false, single_word: false, lstrip: false, rstrip: false });
    known.add(content);
  }
  return added;
}

/** BPE and WordPiece keep ids by token, Unigram a list of [token, score]. */
function vocabularyId(vocabulary: unknown, token: string): number | undefined {
  if (Array.isArray(vocabulary)) {
    const id = vocabulary.findIndex((entry) => Array.isArray(entry) && entry[0] === token);
    return id < 0 ? undefined : id;
  }
  const id = isObject(vocabulary) && Object.hasOwn(vocabulary, token) ? vocabulary[token] : undefined;
  return typeof id === "number" ? id : undefined;
}
