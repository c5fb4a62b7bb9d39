import { isObject, TemporaError } from "@tempora/errors";
import type { Judged, Role } from "@tempora/preferences";
import { shownText } from "@tempora/run";
import { type Message, promptRow, readAllRows, type SourceRow } from "@tempora/text";

/** A completion as `generate` writes it, with what `judge` adds. */
export interface JudgedCompletion {
  text: string;
  /** Tokens. */
  length: number;
  /** null: none of its judgements parsed. undefined: not judged yet. */
  score: number | null | undefined;
}

export interface CompletionsRow {
  row: number;
  source: SourceRow;
  prompt: string | Message[];
  /** What a judge that reads text is shown of the prompt. */
  promptText: string;
  /** What the row holds beside prompt and completions. */
  columns: Readonly<Record<string, unknown>>;
  completions: JudgedCompletion[];
}

/** Reads what `generate` wrote. */
export async function readCompletions(file: string): Promise<CompletionsRow[]> {
  return (await readAllRows(file)).map((source) => parseRow(source, file));
}

export interface JudgedRow extends CompletionsRow {
  pool(role: Role): Judged[];
}

/** Reads what `judge` wrote. */
export async function readJudgedRows(file: string): Promise<JudgedRow[]> {
  return (await readCompletions(file)).map((row) => {
    const unjudged = row.completions.findIndex((completion) => completion.score === undefined);
    if (unjudged >= 0) {
      throw new TemporaError("This completion has no score", {
        where: { file, row: row.row, field: `completions[${unjudged}].score` },
        remedy: "Let `tempora judge` score the file first.",
      });
    }
    return { ...row, pool: (role) => pool(row, role) };
  });
}

function pool(row: CompletionsRow, role: Role): Judged[] {
  return row.completions.map(({ text, length, score }, sample) => ({
    id: `${row.row}-${role}-${sample}`,
    role,
    text,
    score: score ?? null,
    length,
  }));
}

function parseRow(source: SourceRow, file: string): CompletionsRow {
  const { prompt } = source.value;
  if (prompt === undefined || prompt === null) {
    throw new TemporaError("The row has no prompt", {
      where: { file, row: source.row, field: "prompt" },
      remedy: "Generate from rows with a prompt as text or messages: a judge reads text, not token ids.",
    });
  }
  const row = promptRow(source, file);
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
  const { prompt: _, completions: __, ...columns } = source.value;
  return { row: source.row, source, prompt: row.prompt, promptText: shownText(row.prompt), columns, completions };
}

function parseCompletion(value: unknown, where: { file: string; row: number; field: string }): JudgedCompletion {
  const { text, ids, score } = isObject(value) ? value : {};
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
  return { text, length: Array.isArray(ids) ? ids.length : text.length, score };
}
