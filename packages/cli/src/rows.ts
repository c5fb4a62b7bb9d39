import { TemporaError } from "@tempora/errors";
import {
  type Columns,
  ContextFit,
  type Conversation,
  completionRow,
  type PromptRow,
  preferenceRow,
  promptRow,
  type RenderOptions,
  type RowKind,
  readAllRows,
  type SourceRow,
  type TokenizeOptions,
  type Tokenizer,
  tokenizeCompletion,
  tokenizePreference,
  tokenizePrompt,
  withSystem,
} from "@tempora/text";
import type { Context } from "./context.ts";
import type { OpenModel } from "./model.ts";

interface RowPlace {
  file: string;
  row: number;
}

/** A row of a file with the token ids of its prompt and its completions. */
export interface TokenizedRow {
  source: SourceRow;
  promptIds: number[];
  /** By side: chosen and rejected, or completion. */
  sides: { name: string; ids: number[] }[];
  where: RowPlace;
}

export interface PreferenceIds {
  promptIds: number[];
  chosenIds: number[];
  rejectedIds: number[];
  where: RowPlace;
}

export interface CompletionIds {
  promptIds: number[];
  completionIds: number[];
  where: RowPlace;
}

export interface PromptIds {
  source: SourceRow;
  /**
   * The prompt as it was asked, with the system message and the variables of the template that the flags add; null: the row
   * holds token ids only.
   */
  asked: { prompt: Conversation; variables: Record<string, unknown> } | null;
  promptIds: number[];
}

export interface ReadingOptions {
  render: RenderOptions;
  skipTooLong: boolean;
  /** Tokens that must have room behind a prompt. */
  reserve?: number;
  columns?: Columns | undefined;
}

/** Reads the rows of a file as token ids of one model, checked against its vocabulary and its context. */
export class RowReader {
  readonly #model: OpenModel;
  readonly #options: TokenizeOptions;
  readonly #fit: ContextFit;
  readonly #columns: Columns | undefined;
  readonly #note: (text: string) => void;

  constructor(model: OpenModel, context: Context, options: ReadingOptions) {
    const { render, skipTooLong, reserve = 1, columns } = options;
    const { vocabSize, maxPositions } = model.checkpoint.config;
    this.#model = model;
    this.#options = { ...render, vocabSize, maxLength: maxPositions, reserve };
    this.#fit = new ContextFit(skipTooLong);
    this.#columns = columns;
    this.#note = (text) => context.progress.note(text);
  }

  /** Rows that were left out because the context has no room for them. */
  get skipped(): number {
    return this.#fit.skipped;
  }

  async preferences(file: string): Promise<PreferenceIds[]> {
    const given = new GivenIds();
    const rows = await this.#all(file, "preference", async (source) => {
      const row = await this.#preference(source, file);
      if (row !== null && given.take(source)) await this.#compareWithText(source, row, given);
      return row;
    });
    for (const note of given.notes()) this.#note(note);
    return rows;
  }

  completions(file: string): Promise<CompletionIds[]> {
    return this.#all(file, "completion", (source) => this.#completion(source, file));
  }

  /** Says so where prompts are texts that go past a model's chat template: most models for chats then answer nothing of use. */
  async prompts(file: string): Promise<PromptIds[]> {
    const rows = await this.#all(file, "prompt", (source) => this.#prompt(source, file));
    const texts = rows.filter(({ asked }) => typeof asked?.prompt === "string").length;
    if (texts > 0 && (await this.#model.tokenizer()).hasChatTemplate) {
      this.#note(
        `${texts} of ${rows.length} prompts are plain text, which is continued as it is, without the model's chat template. ` +
          'For answers write them as messages, [{"role": "user", "content": …}], or give --system.',
      );
    }
    return rows;
  }

  /** Prompts that were given as texts: a user's turns where the model has a chat template, else texts to continue. */
  async texts(texts: readonly string[], option: string): Promise<PromptIds[]> {
    const { hasChatTemplate } = await this.#model.tokenizer();
    const rows: PromptIds[] = [];
    for (const [index, content] of texts.entries()) {
      const prompt = hasChatTemplate ? [{ role: "user", content }] : content;
      const row = await this.#prompt({ row: index + 1, value: { prompt } }, option);
      if (row !== null) rows.push(row);
    }
    this.#fit.requireSome(rows.length);
    return rows;
  }

  async #prompt(source: SourceRow, file: string): Promise<PromptIds | null> {
    const row = promptRow(source, file);
    const tokenizer = await this.#tokenizerFor(row);
    const ids = this.#fit.keep(() => tokenizePrompt(row, tokenizer, this.#options));
    return ids === null ? null : { source, asked: this.#asked(row), ...ids };
  }

  /** Preference rows and completion rows, told apart by their fields. */
  any(file: string): Promise<TokenizedRow[]> {
    return this.#all(file, "any", async (source) => {
      if (preferenceFields.some((field) => (source.value[field] ?? null) !== null)) {
        const ids = await this.#preference(source, file);
        if (ids === null) return null;
        const sides = [
          { name: "chosen", ids: ids.chosenIds },
          { name: "rejected", ids: ids.rejectedIds },
        ];
        return { source, promptIds: ids.promptIds, sides, where: ids.where };
      }
      const ids = await this.#completion(source, file);
      if (ids === null) return null;
      const sides = [{ name: "completion", ids: ids.completionIds }];
      return { source, promptIds: ids.promptIds, sides, where: ids.where };
    });
  }

  /** Every row that fits. @throws TooLongError where none does. */
  async #all<T>(file: string, as: RowKind, read: (source: SourceRow) => Promise<T | null>): Promise<T[]> {
    const rows: T[] = [];
    for (const source of await readAllRows(file, { as, columns: this.#columns, note: this.#note })) {
      const row = await read(source);
      if (row !== null) rows.push(row);
    }
    this.#fit.requireSome(rows.length);
    const summary = this.#fit.summary("rows");
    if (summary !== null) this.#note(`warning: ${summary}.`);
    return rows;
  }

  async #preference(source: SourceRow, file: string): Promise<PreferenceIds | null> {
    const row = preferenceRow(source, file);
    const tokenizer = await this.#tokenizerFor(row);
    const ids = this.#fit.keep(() => tokenizePreference(row, tokenizer, this.#options));
    return ids === null ? null : { ...ids, where: { file: row.file, row: row.row } };
  }

  /** Ids of another tokenizer are in range as often as not: only the text tells. */
  async #compareWithText(source: SourceRow, row: PreferenceIds, given: GivenIds): Promise<void> {
    const { prompt_ids: _, chosen_ids: _chosen, rejected_ids: _rejected, ...texts } = source.value;
    const text = preferenceRow({ row: source.row, value: texts }, row.where.file);
    const begins = (ids: readonly number[], start: readonly number[]) => start.every((id, k) => ids[k] === id);
    try {
      const options = { ...this.#options, truncate: true };
      const { promptIds, chosenIds } = tokenizePreference(text, await this.#model.tokenizer(), options);
      given.compared(begins(promptIds, row.promptIds) && begins(chosenIds, row.chosenIds));
    } catch (error) {
      // A text that this tokenizer or template refuses gives no ids, and so not those of the row.
      if (!(error instanceof TemporaError)) throw error;
      given.compared(false);
    }
  }

  async #completion(source: SourceRow, file: string): Promise<CompletionIds | null> {
    const row = completionRow(source, file);
    const tokenizer = await this.#tokenizerFor(row);
    const ids = this.#fit.keep(() => tokenizeCompletion(row, tokenizer, this.#options));
    return ids === null ? null : { ...ids, where: { file: row.file, row: row.row } };
  }

  #asked(row: PromptRow): PromptIds["asked"] {
    if ("promptIds" in row) return null;
    const { system, variables } = this.#options;
    return { prompt: withSystem(row.prompt, system), variables: { ...variables, ...row.variables } };
  }

  /** Rows of token ids do without a tokenizer. */
  async #tokenizerFor(row: object): Promise<Tokenizer | null> {
    return "promptIds" in row ? null : this.#model.tokenizer();
  }
}

/** Rows with which to find out whether a file's token ids are this model's. */
const comparedRows = 32;

/** What is told of a file's rows that bring their token ids beside their text. */
class GivenIds {
  #rows = 0;
  #flagged = 0;
  #compared = 0;
  #unlike = 0;

  /** Takes a row in; true when it is one whose text should give its ids. */
  take({ value }: SourceRow): boolean {
    const has = (...fields: string[]) => fields.every((field) => (value[field] ?? null) !== null);
    if (!has("prompt_ids", "chosen_ids", "rejected_ids") || !has("prompt", "chosen", "rejected")) return false;
    this.#rows += 1;
    if (value.text_differs === true) this.#flagged += 1;
    return value.text_differs !== true && this.#compared < comparedRows;
  }

  compared(alike: boolean): void {
    this.#compared += 1;
    if (!alike) this.#unlike += 1;
  }

  notes(): string[] {
    if (this.#rows === 0) return [];
    const notes = [`${this.#rows} rows bring token ids: those are trained on, not their text`];
    if (this.#flagged > 0) notes[0] += `, which gives others for ${this.#flagged} of them`;
    if (this.#unlike > 0) {
      notes.push(
        `warning: in ${this.#unlike} of the first ${this.#compared} rows the ids are not those that this model's tokenizer ` +
          "gives for the text. If they are another model's, remove prompt_ids, chosen_ids and rejected_ids.",
      );
    }
    return notes;
  }
}

const preferenceFields = ["chosen", "rejected", "chosen_ids", "rejected_ids"];
