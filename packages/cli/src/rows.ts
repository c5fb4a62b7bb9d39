import {
  type Conversation,
  completionRow,
  preferenceRow,
  promptRow,
  readAllRows,
  type SourceRow,
  type TokenizeOptions,
  type Tokenizer,
  tokenizeCompletion,
  tokenizePreference,
  tokenizePrompt,
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
  /** null: the row holds token ids only. */
  asked: { prompt: Conversation; variables?: Record<string, unknown> } | null;
  promptIds: number[];
}

/** Reads the rows of a file as token ids of one model, checked against its vocabulary and its context. */
export class RowReader {
  readonly #model: OpenModel;
  readonly #options: TokenizeOptions;
  readonly #note: (text: string) => void;
  #warnings = 0;

  constructor(model: OpenModel, context: Context) {
    this.#model = model;
    this.#note = (text) => context.progress.note(text);
    const { vocabSize, maxPositions } = model.checkpoint.config;
    this.#options = {
      vocabSize,
      maxLength: maxPositions,
      onWarning: (warning) => {
        this.#warnings += 1;
        if (this.#warnings <= 3) context.progress.note(`warning: ${warning}`);
      },
    };
  }

  async preferences(file: string): Promise<PreferenceIds[]> {
    const rows: PreferenceIds[] = [];
    const given = new GivenIds();
    for (const source of await readAllRows(file)) {
      const row = await this.#preference(source, file);
      rows.push(row);
      if (given.take(source)) await this.#compareWithText(source, row, given);
    }
    for (const note of given.notes()) this.#note(note);
    return rows;
  }

  async completions(file: string): Promise<CompletionIds[]> {
    const rows: CompletionIds[] = [];
    for (const source of await readAllRows(file)) rows.push(await this.#completion(source, file));
    return rows;
  }

  async prompts(file: string): Promise<PromptIds[]> {
    const rows: PromptIds[] = [];
    for (const source of await readAllRows(file)) {
      const row = promptRow(source, file);
      rows.push({
        source,
        asked: "prompt" in row ? row : null,
        ...tokenizePrompt(row, await this.#tokenizerFor(row), this.#options),
      });
    }
    return rows;
  }

  /** Preference rows and completion rows, told apart by their fields. */
  async any(file: string): Promise<TokenizedRow[]> {
    const rows: TokenizedRow[] = [];
    for (const source of await readAllRows(file)) {
      if (preferenceFields.some((field) => (source.value[field] ?? null) !== null)) {
        const { promptIds, chosenIds, rejectedIds, where } = await this.#preference(source, file);
        const sides = [
          { name: "chosen", ids: chosenIds },
          { name: "rejected", ids: rejectedIds },
        ];
        rows.push({ source, promptIds, sides, where });
      } else {
        const { promptIds, completionIds, where } = await this.#completion(source, file);
        rows.push({ source, promptIds, sides: [{ name: "completion", ids: completionIds }], where });
      }
    }
    return rows;
  }

  async #preference(source: SourceRow, file: string): Promise<PreferenceIds> {
    const row = preferenceRow(source, file);
    const ids = tokenizePreference(row, await this.#tokenizerFor(row), this.#options);
    return { ...ids, where: { file, row: source.row } };
  }

  /** Ids of another tokenizer are in range as often as not: only the text tells. */
  async #compareWithText(source: SourceRow, row: PreferenceIds, given: GivenIds): Promise<void> {
    const { prompt_ids: _, chosen_ids: _chosen, rejected_ids: _rejected, ...texts } = source.value;
    const text = preferenceRow({ row: source.row, value: texts }, row.where.file);
    const options = { ...this.#options, truncate: true, onWarning: () => {} };
    const { promptIds, chosenIds } = tokenizePreference(text, await this.#model.tokenizer(), options);
    const begins = (ids: readonly number[], start: readonly number[]) => start.every((id, k) => ids[k] === id);
    given.compared(begins(promptIds, row.promptIds) && begins(chosenIds, row.chosenIds));
  }

  async #completion(source: SourceRow, file: string): Promise<CompletionIds> {
    const row = completionRow(source, file);
    const ids = tokenizeCompletion(row, await this.#tokenizerFor(row), this.#options);
    return { ...ids, where: { file, row: source.row } };
  }

  /** Rows of token ids do without a tokenizer. */
  #tokenizerFor(row: object): Promise<Tokenizer> | null {
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
