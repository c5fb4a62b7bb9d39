import { isObject, TemporaError } from "@tempora/errors";
import { asCompletion, type RenderOptions, withSystem } from "./render.ts";
import type { CompletionRow, PreferenceRow, PromptRow } from "./rows.ts";
import type { Tokenizer } from "./tokenizer.ts";
import { TooLongError } from "./too-long.ts";
import type { Conversation, Message } from "./types.ts";
import { encodeParts, renderParts, type TextPart } from "./untrusted.ts";

export interface TokenizeOptions extends RenderOptions {
  /** The model's context, in tokens; longer rows are refused. */
  maxLength?: number;
  /** Tokens that must have room behind a prompt: those of its longest answer. Default 1. */
  reserve?: number;
  /** Cut completions off at maxLength, as TRL's keep_start does, instead of refusing the row. */
  truncate?: boolean;
  /** The model's vocabulary, which bounds ids; default the tokenizer's. */
  vocabSize?: number;
}

/** Rows of token ids need no tokenizer. */
type MaybeTokenizer = Tokenizer | null;

interface Place {
  file: string;
  row: number;
}

/**
 * Token ids of a preference row, exactly as TRL's DPOTrainer makes them. Conversations go through the chat template: the
 * prompt with its generation prompt, then prompt and completion together, of which the prompt's length is cut off.
 * Strings: the completion gets the EOS token unless it ends in it; prompt alone, then prompt + completion.
 * @throws TemporaError naming file and row: an empty completion, ids out of range, a prompt whose tokens are not the
 *   beginning of those of prompt + completion (where TRL warns and cuts), an answer that the template does not keep.
 * @throws TooLongError for a row that the context has no room for.
 */
export function tokenizePreference(
  row: PreferenceRow,
  tokenizer: MaybeTokenizer,
  options: TokenizeOptions = {},
): { promptIds: number[]; chosenIds: number[]; rejectedIds: number[] } {
  const check = new Checker(row, tokenizer, options);
  if ("promptIds" in row) {
    const promptIds = check.prompt(row.promptIds);
    const chosenIds = check.completion("chosen", promptIds, row.chosenIds);
    return { promptIds, chosenIds, rejectedIds: check.completion("rejected", promptIds, row.rejectedIds) };
  }
  const encoder = new Encoder(row, check.tokenizer(), row.variables, options);
  const prompt = encoder.prompt(row.prompt);
  const promptIds = check.prompt(prompt.ids);
  const side = (field: string, value: Conversation) =>
    check.completion(field, promptIds, encoder.continuation(prompt, value, field));
  return { promptIds, chosenIds: side("chosen", row.chosen), rejectedIds: side("rejected", row.rejected) };
}

/** Token ids of a row for supervised training, as TRL's SFTTrainer makes those of prompt and completion. */
export function tokenizeCompletion(
  row: CompletionRow,
  tokenizer: MaybeTokenizer,
  options: TokenizeOptions = {},
): { promptIds: number[]; completionIds: number[] } {
  const check = new Checker(row, tokenizer, options);
  if ("promptIds" in row) {
    const promptIds = check.prompt(row.promptIds);
    return { promptIds, completionIds: check.completion("completion", promptIds, row.completionIds) };
  }
  const encoder = new Encoder(row, check.tokenizer(), row.variables, options);
  const prompt = encoder.prompt(row.prompt, row.promptParts);
  const promptIds = check.prompt(prompt.ids);
  const ids = encoder.continuation(prompt, row.completion, "completion");
  return { promptIds, completionIds: check.completion("completion", promptIds, ids) };
}

/** Token ids of a prompt to continue; a conversation gets the generation prompt. */
export function tokenizePrompt(
  row: PromptRow,
  tokenizer: MaybeTokenizer,
  options: TokenizeOptions = {},
): { promptIds: number[] } {
  const check = new Checker(row, tokenizer, options);
  if ("promptIds" in row) return { promptIds: check.prompt(row.promptIds) };
  return {
    promptIds: check.prompt(new Encoder(row, check.tokenizer(), row.variables, options).prompt(row.prompt).ids),
  };
}

interface EncodedPrompt {
  /** With the system message that stands before it. */
  prompt: Conversation;
  /** Of its last turn, where the row says whose text they are. */
  parts: readonly TextPart[] | undefined;
  ids: number[];
}

/** Text to ids; faults of template and tokenizer get the row's place. */
class Encoder {
  private readonly variables: Record<string, unknown>;

  constructor(
    private readonly place: Place,
    private readonly tokenizer: Tokenizer,
    variables: Record<string, unknown> | undefined,
    private readonly options: RenderOptions,
  ) {
    this.variables = { ...options.variables, ...variables };
  }

  prompt(given: Conversation, parts?: readonly TextPart[]): EncodedPrompt {
    return this.placed("prompt", () => {
      const prompt = withSystem(given, this.options.system);
      if (typeof prompt === "string") return { prompt, parts, ids: this.plain(prompt, parts, "") };
      return { prompt, parts, ids: this.turns(prompt, parts, []) };
    });
  }

  /** What follows the prompt's ids in those of prompt + completion. */
  continuation({ prompt, parts, ids }: EncodedPrompt, given: Conversation, field: string): number[] {
    return this.placed(field, () => {
      const completion = asCompletion(prompt, given);
      if (typeof prompt === "string" || typeof completion === "string") {
        const whole = this.plain(prompt as string, parts, this.withEos(completion as string));
        return this.after(ids, whole, field, "Leave the space or line break before it to the completion");
      }
      this.requireKept(prompt, completion, field);
      return this.after(ids, this.turns(prompt, parts, completion), field, templateRemedy);
    });
  }

  /** Ids of a plain prompt and what follows it. */
  private plain(prompt: string, parts: readonly TextPart[] | undefined, after: string): number[] {
    if (parts === undefined) return this.tokenizer.encode(prompt + after, { special: true });
    return encodeParts([...parts, after], this.tokenizer, { special: true });
  }

  /** Ids of a conversation with the answer's turns, or with the generation prompt where there are none. */
  private turns(
    prompt: readonly Message[],
    parts: readonly TextPart[] | undefined,
    answer: readonly Message[],
  ): number[] {
    const render = (turns: readonly Message[]) => this.render([...turns, ...answer], answer.length === 0);
    if (parts === undefined) return this.tokenizer.encode(render(prompt));
    const [before, last] = [prompt.slice(0, -1), prompt.at(-1) as Message];
    const beside = [...before, ...answer].map(({ content }) => content ?? "");
    const pieces = renderParts(parts, (content) => render([...before, { ...last, content }]), beside);
    return encodeParts(pieces, this.tokenizer);
  }

  private after(ids: readonly number[], whole: readonly number[], field: string, remedy: string): number[] {
    const at = ids.findIndex((id, i) => whole[i] !== id);
    if (at < 0) return whole.slice(ids.length);
    const show = (list: readonly number[]) =>
      JSON.stringify(this.tokenizer.decode(list.slice(Math.max(0, at - 2), at + 6), { skipSpecial: false }));
    const what =
      `The tokens of prompt + ${field} do not begin with those of the prompt: ` +
      `from token ${at + 1} the prompt alone has ${show(ids)}, both together ${show(whole)}`;
    throw new TemporaError(what, { remedy: `${remedy}, or give the row as token ids.` });
  }

  /** Templates of reasoning models drop thoughts, and with them whatever stands before "</think>". */
  private requireKept(prompt: readonly Message[], completion: readonly Message[], field: string): void {
    const bare = (text: string) => text.replace(/\s+/gu, "");
    const rendered = this.render([...prompt, ...completion], false);
    const shown = bare(rendered);
    if (!completion.every(({ content }) => content === null || shown.includes(bare(content)))) {
      const remedy = "Take out of the answer what the template drops, or give the row as token ids.";
      throw new TemporaError(`The chat template does not keep the whole ${field}`, { remedy });
    }
    const others = completion.map(withOtherCalls);
    if (others.every((turn, k) => turn === completion[k])) return;
    // A template that writes the calls writes other ones otherwise.
    if (this.render([...prompt, ...others], false) !== rendered) return;
    const remedy =
      "Some templates write calls only beside content null; else take one that writes tool_calls, or give the row as token ids.";
    throw new TemporaError(`The chat template leaves the tool calls of the ${field} out`, { remedy });
  }

  private withEos(completion: string): string {
    const eos = this.tokenizer.eosToken;
    if (eos === null) {
      throw new TemporaError("The tokenizer has no EOS token, which ends completions given as strings", {
        where: { file: this.tokenizer.folder, field: "eos_token" },
        remedy: "Set eos_token in tokenizer_config.json, or give conversations.",
      });
    }
    return completion.endsWith(eos) ? completion : completion + eos;
  }

  private render(messages: readonly Message[], addGenerationPrompt: boolean): string {
    const { variables, options } = this;
    return this.tokenizer.applyChatTemplate(messages, { addGenerationPrompt, variables, now: options.now });
  }

  private placed<T>(field: string, work: () => T): T {
    try {
      return work();
    } catch (error) {
      if (!(error instanceof TemporaError)) throw error;
      const { file, row } = this.place;
      const origin = error.where.file === undefined ? "" : ` (${error.where.file})`;
      const where = { file, row, field };
      throw new TemporaError(`${error.what}${origin}`, { where, remedy: error.remedy, cause: error });
    }
  }
}

/** The turn with calls of functions of other names; the turn itself where it calls none. */
function withOtherCalls(turn: Message): Message {
  const { tool_calls: calls } = turn as Message & { tool_calls?: unknown };
  if (!Array.isArray(calls) || calls.length === 0) return turn;
  const renamed = (value: Record<string, unknown>) =>
    typeof value.name === "string" ? { ...value, name: `${value.name}_` } : value;
  const others = calls.map((call: unknown) => {
    if (!isObject(call)) return call;
    return isObject(call.function) ? { ...call, function: renamed(call.function) } : renamed(call);
  });
  return { ...turn, tool_calls: others } as Message;
}

const templateRemedy =
  "Set chat_template_kwargs so that the template writes the same in both (as enable_thinking), change the template";

/** Rules that every row of ids must keep. */
class Checker {
  private readonly limit: number;
  private readonly vocabSize: number;

  constructor(
    private readonly place: Place,
    private readonly given: MaybeTokenizer,
    private readonly options: TokenizeOptions,
  ) {
    this.limit = options.maxLength ?? Number.POSITIVE_INFINITY;
    this.vocabSize = options.vocabSize ?? given?.vocabSize ?? Number.POSITIVE_INFINITY;
  }

  tokenizer(): Tokenizer {
    if (this.given !== null) return this.given;
    throw this.error(
      "prompt",
      "The row is text, but the model has no tokenizer",
      "Add its tokenizer.json, or give token ids.",
    );
  }

  prompt(ids: number[]): number[] {
    this.inVocabulary("prompt", ids);
    if (ids.length === 0) {
      throw this.error("prompt", "The prompt has no tokens", "Give a prompt of at least one token.");
    }
    const { reserve = 1 } = this.options;
    if (ids.length + reserve <= this.limit) return ids;
    const room = reserve === 1 ? "no room" : `no room for the ${reserve} new ones asked for`;
    const what = `The prompt has ${ids.length} tokens, which leaves ${room} in a context of ${this.limit}`;
    throw this.tooLong(
      "prompt",
      what,
      reserve === 1 ? "Shorten it" : "Shorten it, ask for fewer new tokens (--max-new-tokens)",
    );
  }

  completion(field: string, promptIds: readonly number[], ids: number[]): number[] {
    this.inVocabulary(field, ids);
    if (ids.length === 0)
      throw this.error(field, `The ${field} has no tokens`, "Leave the row out, or give the answer.");
    const room = this.limit - promptIds.length;
    if (ids.length <= room) return ids;
    if (this.options.truncate === true) return ids.slice(0, room);
    const total = promptIds.length + ids.length;
    throw this.tooLong(field, `Prompt and ${field} have ${total} tokens, more than the context of ${this.limit}`);
  }

  private inVocabulary(field: string, ids: readonly number[]): void {
    const outside = ids.find((id) => id >= this.vocabSize);
    if (outside === undefined) return;
    const what = `Token id ${outside} is outside the vocabulary of ${this.vocabSize}`;
    throw this.error(field, what, "Give the tokenizer and the ids that belong to the model.");
  }

  private tooLong(field: string, what: string, first = "Shorten it"): TooLongError {
    const remedy = `${first}, leave out such rows (--skip-too-long), or take a model with a longer context.`;
    return new TooLongError(what, { where: { ...this.at(), field }, remedy });
  }

  private error(field: string, what: string, remedy: string): TemporaError {
    return new TemporaError(what, { where: { ...this.at(), field }, remedy });
  }

  private at(): Place {
    return { file: this.place.file, row: this.place.row };
  }
}
