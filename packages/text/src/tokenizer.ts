import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { Tokenizer as HuggingFaceTokenizer } from "@huggingface/tokenizers";
import { fileError, isObject, TemporaError } from "@tempora/errors";
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
  private readonly tokenizer: HuggingFaceTokenizer;
  private readonly template: ChatTemplate | null;
  private readonly special: Partial<Record<NamedToken, string>>;
  private readonly cleanUpSpaces: boolean;

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
  }

  static async load(folder: string): Promise<Tokenizer> {
    const file = join(folder, "tokenizer.json");
    const json = await readObject(file, "the tokenizer");
    const config = await readOptional(join(folder, "tokenizer_config.json"));
    const map = await readOptional(join(folder, "special_tokens_map.json"));
    const special = specialTokens(config, map);
    const template = await loadChatTemplate(folder, config);
    const tokenizer = build(json, config, special, file);
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
    // Off unless the config says so, as in transformers 5; the library's own default is on.
    const cleanUpSpaces = config.clean_up_tokenization_spaces === true;
    return new Tokenizer({ folder, tokenizer, vocabSize, special, cleanUpSpaces, template });
  }

  /** Token ids of a text. `special` adds what the tokenizer puts around a text of its own, such as BOS. */
  encode(text: string, { special = false }: { special?: boolean } = {}): number[] {
    if (!text.isWellFormed()) {
      throw new TemporaError("The text holds half of a surrogate pair", {
        remedy: "Give well-formed Unicode.",
      });
    }
    const { ids, tokens } = this.tokenizer.encode(text, { add_special_tokens: special });
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
    return this.tokenizer.decode(known, {
      skip_special_tokens: skipSpecial,
      clean_up_tokenization_spaces: this.cleanUpSpaces,
    });
  }

  get hasChatTemplate(): boolean {
    return this.template !== null;
  }

  /**
   * The text of a conversation by the model's chat template. Encode it without special tokens: it brings its own.
   * @param variables Further variables of the template, such as `tools` or `enable_thinking`.
   */
  applyChatTemplate(
    messages: readonly Message[],
    { addGenerationPrompt, variables = {} }: { addGenerationPrompt: boolean; variables?: Record<string, unknown> },
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
    return this.template.render(messages, addGenerationPrompt, { ...this.special, ...variables });
  }

  private idOf(name: NamedToken): number | null {
    const token = this.special[name];
    return token === undefined ? null : (this.tokenizer.token_to_id(token) ?? null);
  }
}

async function readObject(file: string, what: string): Promise<JsonObject> {
  let value: unknown;
  try {
    value = JSON.parse(await readFile(file, "utf8"));
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw fileError(error, `Cannot read ${what}`, file);
    throw new TemporaError(`Not valid JSON: ${error.message}`, {
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

async function readOptional(file: string): Promise<JsonObject> {
  return existsSync(file) ? readObject(file, "the tokenizer's settings") : {};
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

function build(json: JsonObject, config: JsonObject, special: object, file: string): HuggingFaceTokenizer {
  try {
    return new HuggingFaceTokenizer({ ...json, added_tokens: addedTokens(json, config, special) }, config);
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
