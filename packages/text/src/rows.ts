import { isObject, TemporaError } from "@tempora/errors";
import { z } from "zod";
import { extractPrompt } from "./extract-prompt.ts";
import { schemaFault } from "./schema-faults.ts";
import type { Conversation, SourceRow } from "./types.ts";
import { partsText, type TextPart } from "./untrusted.ts";

interface RowPlace {
  file: string;
  /** 1-based. */
  row: number;
}

/** What a row adds to the variables of the chat template: TRL's columns `tools` and `chat_template_kwargs`. */
interface Templated {
  variables?: Record<string, unknown>;
}

export type PreferenceRow =
  | (RowPlace & Templated & { prompt: Conversation; chosen: Conversation; rejected: Conversation })
  | (RowPlace & { promptIds: number[]; chosenIds: number[]; rejectedIds: number[] });

export type CompletionRow =
  | (RowPlace & Templated & { prompt: Conversation; promptParts?: TextPart[]; completion: Conversation })
  | (RowPlace & { promptIds: number[]; completionIds: number[] });

export type PromptRow = (RowPlace & Templated & { prompt: Conversation }) | (RowPlace & { promptIds: number[] });

const brokenText = "holds half of a surrogate pair, which is no text";
const text = z.string().refine((value) => value.isWellFormed(), brokenText);
const message = z
  .looseObject({ role: text.min(1, "must not be empty"), content: z.unknown() })
  .transform((turn, context) => ({ ...turn, content: contentOf(turn, context) }));
const turns = z.array(message).min(1, "has no messages");
const conversation = z.union([text, turns], { error: "must be a string or a list of {role, content}" });
const textParts = z.array(z.object({ text, untrusted: z.boolean() }), {
  error: "must be a list of {text, untrusted}",
});
const tokenIds = z.array(z.number().int().min(0, "must be a token id, 0 or more"), {
  error: "must be a list of token ids",
});

/** A turn's text: as it is, or the texts of its parts joined, as OpenAI's messages have them. */
function contentOf(turn: Record<string, unknown>, context: z.RefinementCtx): string | null {
  const { content } = turn;
  const fail = (message: string, ...path: (string | number)[]) => {
    context.addIssue({ code: "custom", message, path: ["content", ...path] });
    return "";
  };
  if (typeof content === "string") return content.isWellFormed() ? content : fail(brokenText);
  if ((content ?? null) === null && Array.isArray(turn.tool_calls)) return null;
  if (!Array.isArray(content)) return fail("must be a string or a list of {type, text}");
  return content
    .map((part: unknown, i) => {
      const { type, text } = isObject(part) ? part : {};
      if (type !== "text") return fail(`only parts of type "text" are read, not ${JSON.stringify(type)}`, i, "type");
      if (typeof text !== "string") return fail("must be a string", i, "text");
      return text.isWellFormed() ? text : fail(brokenText, i, "text");
    })
    .join("");
}

/**
 * Checks a row of preferences: {prompt, chosen, rejected} or {prompt_ids, chosen_ids, rejected_ids}. A row whose prompt is
 * only implied, or repeated, by its conversations is split as TRL splits it (data_utils: maybe_extract_prompt).
 * @throws TemporaError naming file, row and field.
 */
export function preferenceRow(source: SourceRow, file: string): PreferenceRow {
  const reader = new RowReader(source, file);
  if (reader.hasAll("prompt_ids", "chosen_ids", "rejected_ids")) {
    const ids = { promptIds: reader.ids("prompt_ids"), chosenIds: reader.ids("chosen_ids") };
    return { ...reader.place, ...ids, rejectedIds: reader.ids("rejected_ids") };
  }
  const chosen = reader.conversation("chosen");
  const rejected = reader.conversation("rejected");
  reader.sameForm("rejected", rejected, "chosen", chosen);
  const given = reader.hasAll("prompt") ? reader.conversation("prompt") : null;
  const implied = given === null || (typeof given === "string" && typeof chosen !== "string");
  const parts = implied ? impliedPrompt(reader, chosen, rejected, given) : { prompt: given, chosen, rejected };
  reader.sameForm("chosen", parts.chosen, "prompt", parts.prompt);
  reader.notEmpty("chosen", parts.chosen);
  reader.notEmpty("rejected", parts.rejected);
  return { ...reader.place, ...reader.variables(), ...parts };
}

function impliedPrompt(reader: RowReader, chosen: Conversation, rejected: Conversation, given: Conversation | null) {
  const parts = extractPrompt(chosen, rejected);
  if (parts.prompt.length === 0) {
    if (given !== null) reader.mixed("chosen", "a conversation", "prompt", "a string");
    reader.fail(
      "prompt",
      `The row has no field prompt, and chosen and rejected share no beginning; it has ${reader.fields()}`,
      "Add the prompt as a field of its own.",
    );
  }
  return parts;
}

/**
 * Checks a row for supervised training: {prompt, completion} or {prompt_ids, completion_ids}. `prompt_parts`, a list of
 * {text, untrusted}, says which pieces of the prompt's last turn are somebody else's text: they hold no special tokens.
 * @throws TemporaError naming file, row and field.
 */
export function completionRow(source: SourceRow, file: string): CompletionRow {
  const reader = new RowReader(source, file);
  if (reader.hasAll("prompt_ids", "completion_ids")) {
    return { ...reader.place, promptIds: reader.ids("prompt_ids"), completionIds: reader.ids("completion_ids") };
  }
  const prompt = reader.conversation("prompt");
  const completion = reader.conversation("completion");
  reader.sameForm("completion", completion, "prompt", prompt);
  reader.notEmpty("completion", completion);
  return { ...reader.place, ...reader.variables(), prompt, ...reader.promptParts(prompt), completion };
}

/**
 * Checks a row of prompts: {prompt} or {prompt_ids}; also the fields of well-known prompt collections, as plain text:
 * `instruction` (with `input`, or that of the first of its `instances`), `question`, and the first of `turns`.
 */
export function promptRow(source: SourceRow, file: string): PromptRow {
  const reader = new RowReader(source, file);
  if (reader.hasAll("prompt_ids")) return { ...reader.place, promptIds: reader.ids("prompt_ids") };
  if (reader.hasAll("prompt")) {
    return { ...reader.place, ...reader.variables(), prompt: reader.conversation("prompt") };
  }
  return { ...reader.place, ...reader.variables(), prompt: reader.collectionPrompt() };
}

const instruction = z.object({
  instruction: text.min(1, "must not be empty"),
  input: text.nullish(),
  instances: z.array(z.object({ input: text.nullish() })).nullish(),
});

/** Whether a conversation says nothing: a turn that only calls tools says that. */
function isEmpty(value: Conversation): boolean {
  if (typeof value === "string") return value === "";
  return value.every((turn) => {
    const calls = "tool_calls" in turn ? turn.tool_calls : null;
    return (turn.content ?? "") === "" && !(Array.isArray(calls) && calls.length > 0);
  });
}

/** Reads the fields of one row; every fault names file, row and field. */
class RowReader {
  readonly place: RowPlace;
  private readonly value: Record<string, unknown>;

  constructor(source: SourceRow, file: string) {
    this.place = { file: source.file ?? file, row: source.row };
    this.value = source.value;
  }

  hasAll(...fields: string[]): boolean {
    return fields.every((field) => (this.value[field] ?? null) !== null);
  }

  fields(): string {
    return Object.keys(this.value).join(", ") || "none";
  }

  ids(field: string): number[] {
    const ids = this.parse(tokenIds, field);
    if (ids.length === 0) this.fail(field, `${field} is empty`, "Give at least one token id, or leave the row out.");
    return ids;
  }

  conversation(field: string): Conversation {
    if (!this.hasAll(field)) {
      const remedy = Array.isArray(this.value.completions)
        ? "These are sampled completions: score them by `tempora judge`, make pairs of them by `tempora pairs`."
        : `Add the field ${field} to every row, or say which column has it by --columns ${field}=COLUMN.`;
      this.fail(field, `The row has no field ${field}; it has ${this.fields()}`, remedy);
    }
    const value = this.value[field];
    // Checked apart, so that the message names what is at fault rather than the two forms.
    if (typeof value === "string") return this.parse(text, field);
    return Array.isArray(value) ? this.parse(turns, field) : this.parse(conversation, field);
  }

  collectionPrompt(): string {
    if (this.hasAll("instruction")) {
      const row = this.parse(instruction);
      const input = row.input ?? row.instances?.[0]?.input ?? "";
      return input === "" ? row.instruction : `${row.instruction}\n${input}`;
    }
    if (this.hasAll("question")) return this.parse(text, "question");
    if (this.hasAll("turns")) return this.parse(z.array(text).min(1, "is empty"), "turns")[0]!;
    const remedy = "Give rows with the field prompt, or say which column has it by --columns prompt=COLUMN.";
    return this.fail("prompt", `The row has no field prompt; it has ${this.fields()}`, remedy);
  }

  variables(): Templated {
    if (!this.hasAll("tools") && !this.hasAll("chat_template_kwargs")) return {};
    const named = this.parse(z.record(z.string(), z.unknown()).nullish(), "chat_template_kwargs") ?? {};
    const { tools } = this.value;
    return { variables: { ...(tools == null ? {} : { tools: this.tools(tools) }), ...named } };
  }

  promptParts(prompt: Conversation): { promptParts?: TextPart[] } {
    const field = "prompt_parts";
    if (!this.hasAll(field)) return {};
    const promptParts = this.parse(textParts, field).map((part) =>
      part.untrusted ? { untrusted: part.text } : part.text,
    );
    const last = typeof prompt === "string" ? { role: "user", content: prompt } : prompt.at(-1);
    if (last?.role === "user" && last.content === partsText(promptParts)) return { promptParts };
    const remedy = "Leave the field out, or split the prompt as it stands: the texts of the parts are joined.";
    return this.fail(field, "The parts are not those of the prompt's last turn, the user's", remedy);
  }

  sameForm(field: string, value: Conversation, otherField: string, other: Conversation): void {
    const form = (one: Conversation) => (typeof one === "string" ? "a string" : "a conversation");
    if (form(value) !== form(other)) this.mixed(field, form(value), otherField, form(other));
  }

  mixed(field: string, form: string, otherField: string, otherForm: string): never {
    const remedy = "Write all fields of a row as strings, or all as lists of {role, content}.";
    this.fail(field, `${field} is ${form}, but ${otherField} is ${otherForm}`, remedy);
  }

  notEmpty(field: string, value: Conversation): void {
    if (isEmpty(value))
      this.fail(field, `${field} is empty`, "Leave the row out, or give it the answer that is missing.");
  }

  fail(field: string, what: string, remedy: string): never {
    throw new TemporaError(what, { where: { ...this.place, field }, remedy });
  }

  private tools(value: unknown): unknown {
    if (typeof value !== "string") return value;
    try {
      return JSON.parse(value);
    } catch {
      return this.fail("tools", "tools is a string that is not JSON", "Write the tools as a list, or as JSON text.");
    }
  }

  private parse<T>(schema: z.ZodType<T>, field?: string): T {
    const result = schema.safeParse(field === undefined ? this.value : this.value[field]);
    if (result.success) return result.data;
    const issue = result.error.issues[0]!;
    const path = [...(field === undefined ? [] : [field]), ...issue.path];
    const name = path
      .map((key, i) => (typeof key === "number" ? `[${key}]` : i === 0 ? key : `.${String(key)}`))
      .join("");
    return this.fail(name, `${name}: ${schemaFault(issue.message)}`, "Correct the row.");
  }
}
