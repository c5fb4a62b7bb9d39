import {
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

/** Reads the rows of a file as token ids of one model, checked against its vocabulary and its context. */
export class RowReader {
  readonly #model: OpenModel;
  readonly #options: TokenizeOptions;
  #warnings = 0;

  constructor(model: OpenModel, context: Context) {
    this.#model = model;
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
    for (const source of await readAllRows(file)) rows.push(await this.#preference(source, file));
    return rows;
  }

  async completions(file: string): Promise<CompletionIds[]> {
    const rows: CompletionIds[] = [];
    for (const source of await readAllRows(file)) rows.push(await this.#completion(source, file));
    return rows;
  }

  async prompts(file: string): Promise<{ source: SourceRow; promptIds: number[] }[]> {
    const rows: { source: SourceRow; promptIds: number[] }[] = [];
    for (const source of await readAllRows(file)) {
      const row = promptRow(source, file);
      rows.push({ source, ...tokenizePrompt(row, await this.#tokenizerFor(row), this.#options) });
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

const preferenceFields = ["chosen", "rejected", "chosen_ids", "rejected_ids"];
