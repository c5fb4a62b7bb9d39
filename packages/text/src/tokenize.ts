import { TemporaError } from "@tempora/errors";
import type { CompletionRow, PreferenceRow, PromptRow } from "./rows.ts";
import type { Tokenizer } from "./tokenizer.ts";
import type { Conversation, Message } from "./types.ts";

export interface TokenizeOptions {
  /** The model's context, in tokens; longer rows are refused. */
  maxLength?: number;
  /** Cut completions off at maxLength, as TRL's keep_start does, instead of refusing the row. */
  truncate?: boolean;
  /** The model's vocabulary, which bounds ids; default the tokenizer's. */
  vocabSize?: number;
  /** Told, as TRL warns, when prompt + completion does not begin with the prompt's own tokens. */
  onWarning?(warning: string): void;
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
 * @throws TemporaError naming file and row: an empty completion, a prompt as long as the context, ids out of range.
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
  const encoder = new Encoder(row, check.tokenizer(), row.variables);
  const promptIds = check.prompt(encoder.prompt(row.prompt));
  const side = (field: string, value: Conversation) =>
    check.completion(field, promptIds, check.continuation(field, promptIds, encoder.whole(row.prompt, value, field)));
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
  const encoder = new Encoder(row, check.tokenizer(), row.variables);
  const promptIds = check.prompt(encoder.prompt(row.prompt));
  const whole = encoder.whole(row.prompt, row.completion, "completion");
  const completionIds = check.continuation("completion", promptIds, whole);
  return { promptIds, completionIds: check.completion("completion", promptIds, completionIds) };
}

/** Token ids of a prompt to continue; a conversation gets the generation prompt. */
export function tokenizePrompt(
  row: PromptRow,
  tokenizer: MaybeTokenizer,
  options: TokenizeOptions = {},
): { promptIds: number[] } {
  const check = new Checker(row, tokenizer, options);
  if ("promptIds" in row) return { promptIds: check.prompt(row.promptIds) };
  return { promptIds: check.prompt(new Encoder(row, check.tokenizer(), row.variables).prompt(row.prompt)) };
}

/** Text to ids; faults of template and tokenizer get the row's place. */
class Encoder {
  constructor(
    private readonly place: Place,
    private readonly tokenizer: Tokenizer,
    private readonly variables: Record<string, unknown> = {},
  ) {}

  prompt(prompt: Conversation): number[] {
    return this.placed("prompt", () =>
      typeof prompt === "string" ? this.tokenizer.encode(prompt, { special: true }) : this.template(prompt, true),
    );
  }

  whole(prompt: Conversation, completion: Conversation, field: string): number[] {
    return this.placed(field, () => {
      if (typeof prompt === "string" && typeof completion === "string") {
        return this.tokenizer.encode(prompt + this.withEos(completion), { special: true });
      }
      return this.template([...(prompt as Message[]), ...(completion as Message[])], false);
    });
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

  private template(messages: readonly Message[], addGenerationPrompt: boolean): number[] {
    const text = this.tokenizer.applyChatTemplate(messages, { addGenerationPrompt, variables: this.variables });
    return this.tokenizer.encode(text);
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
    return this.fail(
      "prompt",
      "The row is text, but the model has no tokenizer",
      "Add its tokenizer.json, or give token ids.",
    );
  }

  prompt(ids: number[]): number[] {
    this.inVocabulary("prompt", ids);
    if (ids.length === 0) {
      this.fail("prompt", "The prompt has no tokens", "Give a prompt of at least one token.");
    }
    if (ids.length >= this.limit) {
      const what = `The prompt has ${ids.length} tokens, which leaves no room in a context of ${this.limit}`;
      this.fail("prompt", what, "Shorten it, leave the row out, or take a model with a longer context.");
    }
    return ids;
  }

  /** What follows the prompt's length in prompt + completion: TRL's cut, with its warning. */
  continuation(field: string, promptIds: readonly number[], whole: readonly number[]): number[] {
    if (promptIds.some((id, i) => whole[i] !== id)) {
      const { file, row } = this.place;
      this.options.onWarning?.(
        `${file}, row ${row}: the tokens of prompt + ${field} do not begin with those of the prompt alone; ` +
          "they are cut at the prompt's length, as TRL does",
      );
    }
    return whole.slice(promptIds.length);
  }

  completion(field: string, promptIds: readonly number[], ids: number[]): number[] {
    this.inVocabulary(field, ids);
    if (ids.length === 0) this.fail(field, `The ${field} has no tokens`, "Leave the row out, or give the answer.");
    const room = this.limit - promptIds.length;
    if (ids.length <= room) return ids;
    if (this.options.truncate === true) return ids.slice(0, room);
    const total = promptIds.length + ids.length;
    const what = `Prompt and ${field} have ${total} tokens, more than the context of ${this.limit}`;
    return this.fail(field, what, "Shorten it, leave the row out, or take a model with a longer context.");
  }

  private inVocabulary(field: string, ids: readonly number[]): void {
    const outside = ids.find((id) => id >= this.vocabSize);
    if (outside === undefined) return;
    const what = `Token id ${outside} is outside the vocabulary of ${this.vocabSize}`;
    this.fail(field, what, "Give the tokenizer and the ids that belong to the model.");
  }

  private fail(field: string, what: string, remedy: string): never {
    throw new TemporaError(what, { where: { file: this.place.file, row: this.place.row, field }, remedy });
  }
}
