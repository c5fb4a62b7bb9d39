import { createHash } from "node:crypto";
import { basename } from "node:path";
import { isObject, TemporaError } from "@tempora/errors";
import { type Answer, alpacaEvalFile, arenaHardFile } from "@tempora/report";
import { readAllRows, type SourceRow, writeWhole } from "@tempora/text";
import type { Context } from "../context.ts";
import { claimFile } from "../output.ts";

export const answerFormats = ["alpaca-eval", "arena-hard"] as const;
export type AnswerFormat = (typeof answerFormats)[number];

interface AnswersPlan {
  format: AnswerFormat;
  data: string;
  out: string;
  /** The model's name in the file. */
  name: string | undefined;
}

/** Writes answers in the form of an evaluation that somebody else runs. */
export async function exportAnswers({ format, data, out, name }: AnswersPlan, context: Context): Promise<void> {
  const path = await claimFile("--out", out, [data]);
  const model = name ?? basename(data).replace(/\.jsonl(\.gz)?$/, "");
  const rows = await readAllRows(data);
  const answers = rows.map((row) => answerOf(row, data));
  const several = rows.find(({ value }) => Array.isArray(value.completions) && value.completions.length > 1);
  if (several !== undefined) context.progress.note("Of several completions the first is taken.");
  await writeWhole(
    path,
    format === "alpaca-eval" ? alpacaEvalFile(answers, model) : arenaHardFile(answers, model, Date.now() / 1000),
  );
  context.result(
    { out: path, format, answers: answers.length, model },
    `${answers.length} answers of ${model}: ${out}`,
  );
}

/** A row of a run's evaluation ({prompt, text, tokens}), or of `generate` ({prompt, completions: [{text, ids}]}). */
function answerOf(source: SourceRow, file: string): Answer {
  const { value } = source;
  const instruction = instructionOf(source, file);
  const completion: unknown = Array.isArray(value.completions) ? value.completions[0] : value;
  if (!isObject(completion) || typeof completion.text !== "string") {
    throw new TemporaError("The row holds no answer: neither text nor completions", {
      where: { file, row: source.row },
      remedy: "Give a run's evaluation/M*.jsonl, or what `tempora generate` wrote.",
    });
  }
  const { ids, tokens } = completion;
  const length = Array.isArray(ids) ? ids.length : typeof tokens === "number" ? tokens : 0;
  const named = value.uid ?? value.question_id ?? value.prompt_id;
  const uid = typeof named === "string" || typeof named === "number" ? String(named) : hashOf(instruction);
  return { uid, instruction, output: completion.text, tokens: length };
}

/** Both evaluations know one user's turn; a system prompt before it is not theirs to see. */
function instructionOf({ row, value }: SourceRow, file: string): string {
  const { prompt } = value;
  if (typeof prompt === "string") return prompt;
  const turns = Array.isArray(prompt) ? prompt.filter(isObject).filter(({ role }) => role !== "system") : [];
  const [turn] = turns;
  if (turns.length === 1 && turn?.role === "user" && typeof turn.content === "string") return turn.content;
  throw new TemporaError("The prompt is no single user's turn, which this evaluation wants", {
    where: { file, row, field: "prompt" },
    remedy: "Leave longer conversations out.",
  });
}

function hashOf(text: string): string {
  return createHash("sha256").update(text).digest("hex").slice(0, 22);
}
