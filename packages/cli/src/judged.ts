import { isObject, TemporaError } from "@tempora/errors";
import type { Judged, Role } from "@tempora/preferences";
import { type Columns, type Conversation, promptRow, readAllRows, type SourceRow, shownText } from "@tempora/text";

/** A completion as `generate` writes it, with what `judge` adds. */
export interface JudgedCompletion {
  text: string;
  /** What was sampled; undefined where the file was not written by `generate`. */
  ids: number[] | undefined;
  /** Its length was used up: it has no end. */
  truncated: boolean;
  /** Its text does not give the ids again. */
  textDiffers: boolean;
  /** Tokens. */
  length: number;
  /** null: none of its judgements parsed. undefined: not judged yet. */
  score: number | null | undefined;
}

export interface CompletionsRow {
  row: number;
  source: SourceRow;
  prompt: Conversation;
  /** Of the chat template: tools, and those of chat_template_kwargs. */
  variables: Record<string, unknown>;
  /** What a judge that reads text is shown of the prompt. */
  promptText: string;
  /** What the row holds beside prompt and completions. */
  columns: Readonly<Record<string, unknown>>;
  /** What the model read; undefined where the file was not written by `generate`. */
  promptIds: number[] | undefined;
  completions: JudgedCompletion[];
}

/** Reads what `generate` wrote. */
export async function readCompletions(file: string, columns?: Columns): Promise<CompletionsRow[]> {
  return (await readAllRows(file, { columns })).map((source) => parseRow(source, source.file ?? file));
}

/** A judged completion with whose it is. */
export interface Candidate extends Judged {
  role: Role;
  ids: number[] | undefined;
  textDiffers: boolean;
}

export interface JudgedRow extends CompletionsRow {
  pool(role: Role): Candidate[];
}

/** Reads what `judge` wrote. */
export async function readJudgedRows(file: string, columns?: Columns): Promise<JudgedRow[]> {
  return (await readCompletions(file, columns)).map((row) => {
    const unjudged = row.completions.findIndex((completion) => completion.score === undefined);
    if (unjudged >= 0) {
      throw new TemporaError("This completion has no score", {
        where: { file: row.source.file ?? file, row: row.row, field: `completions[${unjudged}].score` },
        remedy: "Let `tempora judge` score the file first.",
      });
    }
    return { ...row, pool: (role) => pool(row, role) };
  });
}

function pool(row: CompletionsRow, role: Role): Candidate[] {
  return row.completions.map(({ score, ...completion }) => ({ ...completion, role, score: score ?? null }));
}

function parseRow(source: SourceRow, file: string): CompletionsRow {
  const { prompt_ids: promptIds, ...texts } = source.value;
  const { prompt } = texts;
  if (prompt === undefined || prompt === null) {
    throw new TemporaError("The row has no prompt", {
      where: { file, row: source.row, field: "prompt" },
      remedy: "Generate from rows with a prompt as text or messages: a judge reads text, not token ids.",
    });
  }
  const row = promptRow({ row: source.row, value: texts }, file);
  if (!("prompt" in row)) throw new TypeError("a row with a prompt was read as token ids");
  const list: unknown = source.value.completions;
  if (!Array.isArray(list) || list.length === 0) {
    throw new TemporaError("The row has no completions", {
      where: { file, row: source.row, field: "completions" },
      remedy: "Give a file that `tempora generate` wrote (for pairs: that `tempora judge` wrote).",
    });
  }
  const completions = list.map((value: unknown, index) => {
    const where = { file, row: source.row, field: `completions[${index}]` };
    return parseCompletion(value, where);
  });
  const ids = tokenIds(promptIds, { file, row: source.row, field: "prompt_ids" });
  const { prompt: _, completions: __, ...columns } = texts;
  const { variables = {} } = row;
  const shared = { row: source.row, source, variables, promptText: shownText(row.prompt, variables), columns };
  return { ...shared, prompt: row.prompt, promptIds: ids, completions };
}

function parseCompletion(value: unknown, where: { file: string; row: number; field: string }): JudgedCompletion {
  const { text, ids, score, ...rest } = isObject(value) ? value : {};
  if (typeof text !== "string") {
    throw new TemporaError("The completion has no text", {
      where,
      remedy: "Give a file that `tempora generate` wrote (for pairs: that `tempora judge` wrote).",
    });
  }
  if (score !== undefined && score !== null && !(typeof score === "number" && Number.isFinite(score))) {
    throw new TemporaError(`The score is ${JSON.stringify(score)}`, {
      where: { ...where, field: `${where.field}.score` },
      remedy: "Give a number, or null where no judgement parsed.",
    });
  }
  const known = tokenIds(ids, { ...where, field: `${where.field}.ids` });
  return {
    text,
    ids: known,
    length: known?.length ?? text.length,
    score,
    truncated: rest.finish_reason === "length",
    textDiffers: rest.text_differs === true,
  };
}

function tokenIds(value: unknown, where: { file: string; row: number; field: string }): number[] | undefined {
  if (value === undefined || value === null) return undefined;
  if (Array.isArray(value) && value.every((id) => Number.isInteger(id) && id >= 0)) return value;
  throw new TemporaError("These are no token ids", {
    where,
    remedy: "Give a list of whole numbers, as `tempora generate` writes it, or leave the field out.",
  });
}
