import { isObject, TemporaError } from "@tempora/errors";
import { z } from "zod";
import {
  alpacaTurns,
  assistant,
  conversationTurns,
  history,
  messageTurns,
  notEmpty,
  oneTurn,
  optional,
  segments,
  type Turn,
  userTurn,
  withSystemTurn,
} from "./format-parts.ts";
import { schemaFault } from "./schema-faults.ts";
import type { SourceRow } from "./types.ts";

/** What a command reads rows as; `any`: preferences where there are chosen and rejected answers, else completions. */
export type RowKind = "preference" | "completion" | "prompt" | "any";

/** One way of other tools to write rows. */
interface Format {
  /** For people: whose format it is, and how its fields are read. */
  name: string;
  /** The fields that must be there; what it is recognised by. */
  needs: readonly string[];
  /** All fields that are read; they are replaced by TRL's. */
  uses: readonly string[];
  /** Further conditions. */
  fits?(value: Readonly<Record<string, unknown>>): boolean;
  schema: z.ZodType<Record<string, unknown>>;
}

const isList = (value: unknown) => Array.isArray(value);
const bothText = (row: Readonly<Record<string, unknown>>) =>
  typeof row.chosen === "string" && typeof row.rejected === "string";
const bothTurns = (row: Readonly<Record<string, unknown>>) => isObject(row.chosen) && isObject(row.rejected);
const lacks = (field: string) => (row: Readonly<Record<string, unknown>>) => (row[field] ?? null) === null;

/** A prompt of one user's turn with the answers to it. */
function asked(field: string, sides: Record<string, string>) {
  const answers = Object.fromEntries(Object.keys(sides).map((side) => [side, notEmpty]));
  return z.object({ [field]: notEmpty, system: optional, ...answers }).transform((row) => ({
    prompt: withSystemTurn(row.system as string | null | undefined, [userTurn(row[field] as string)]),
    ...Object.fromEntries(Object.entries(sides).map(([side, name]) => [name, [assistant(row[side] as string)]])),
  })) as z.ZodType<Record<string, unknown>>;
}

const alpaca = { instruction: notEmpty, input: optional, system: optional, history };
const alpacaFields = ["instruction", "input", "system", "history"];
const pair = { chosen: "chosen", rejected: "rejected" };

const preferences: readonly Format[] = [
  {
    name: "LLaMA-Factory's alpaca preferences (instruction, input, history and system make the prompt)",
    needs: ["instruction", "chosen", "rejected"],
    uses: [...alpacaFields, "chosen", "rejected"],
    fits: bothText,
    schema: z.object({ ...alpaca, chosen: notEmpty, rejected: notEmpty }).transform(({ chosen, rejected, ...row }) => ({
      prompt: alpacaTurns(row),
      chosen: [assistant(chosen)],
      rejected: [assistant(rejected)],
    })),
  },
  {
    name: "LLaMA-Factory's sharegpt preferences (conversations, then chosen or rejected)",
    needs: ["conversations", "chosen", "rejected"],
    uses: ["conversations", "system", "chosen", "rejected"],
    fits: bothTurns,
    schema: z
      .object({ conversations: conversationTurns, system: optional, chosen: oneTurn, rejected: oneTurn })
      .transform(({ conversations, system, chosen, rejected }) => ({
        prompt: withSystemTurn(system, conversations),
        chosen: [chosen],
        rejected: [rejected],
      })),
  },
  {
    name: "Axolotl's chat_template preferences (messages, then chosen or rejected)",
    needs: ["messages", "chosen", "rejected"],
    uses: ["messages", "system", "chosen", "rejected"],
    fits: bothTurns,
    schema: z
      .object({ messages: messageTurns, system: optional, chosen: oneTurn, rejected: oneTurn })
      .transform(({ messages, system, chosen, rejected }) => ({
        prompt: withSystemTurn(system, messages),
        chosen: [chosen],
        rejected: [rejected],
      })),
  },
  {
    name: "Axolotl's chatml.argilla (instruction, chosen_response, rejected_response)",
    needs: ["instruction", "chosen_response", "rejected_response"],
    uses: ["instruction", "system", "chosen_response", "rejected_response"],
    schema: asked("instruction", { chosen_response: "chosen", rejected_response: "rejected" }),
  },
  {
    name: "Axolotl's chatml.intel (question, chosen, rejected)",
    needs: ["question", "chosen", "rejected"],
    uses: ["question", "system", "chosen", "rejected"],
    fits: bothText,
    schema: asked("question", pair),
  },
  {
    name: "Axolotl's chatml.icr (input, chosen, rejected)",
    needs: ["input", "chosen", "rejected"],
    uses: ["input", "system", "chosen", "rejected"],
    fits: (row) => bothText(row) && lacks("instruction")(row),
    schema: asked("input", pair),
  },
];

const lastTurn = "the last turn is trained, the earlier ones are its prompt";

const completions: readonly Format[] = [
  {
    name: "alpaca (instruction, input, history and system make the prompt, output the completion)",
    needs: ["instruction", "output"],
    uses: [...alpacaFields, "output"],
    schema: z.object({ ...alpaca, output: notEmpty }).transform(({ output, ...row }) => ({
      prompt: alpacaTurns(row),
      completion: [assistant(output)],
    })),
  },
  {
    name: `messages of OpenAI's form (${lastTurn})`,
    needs: ["messages"],
    uses: ["messages", "system"],
    schema: z
      .object({ messages: messageTurns, system: optional })
      .transform(({ messages, system }, context) => split(withSystemTurn(system, messages), "messages", context)),
  },
  {
    name: `sharegpt conversations (${lastTurn})`,
    needs: ["conversations"],
    uses: ["conversations", "system"],
    schema: z
      .object({ conversations: conversationTurns, system: optional })
      .transform(({ conversations, system }, context) =>
        split(withSystemTurn(system, conversations), "conversations", context),
      ),
  },
  {
    name: "OpenRLHF's input and output",
    needs: ["input", "output"],
    uses: ["input", "system", "output"],
    fits: lacks("instruction"),
    schema: z
      .object({ input: z.union([notEmpty, messageTurns]), system: optional, output: z.union([notEmpty, messageTurns]) })
      .transform(({ input, system, output }) => ({
        prompt: withSystemTurn(system, typeof input === "string" ? [userTurn(input)] : input),
        completion: typeof output === "string" ? [assistant(output)] : output,
      })),
  },
  {
    name: `OpenRLHF's input as messages (${lastTurn})`,
    needs: ["input"],
    uses: ["input"],
    fits: (row) => isList(row.input) && lacks("output")(row),
    schema: z.object({ input: messageTurns }).transform(({ input }, context) => split(input, "input", context)),
  },
  {
    name: "question and answer",
    needs: ["question", "answer"],
    uses: ["question", "system", "answer"],
    schema: asked("question", { answer: "completion" }),
  },
  {
    name: "Axolotl's input_output segments (those labelled true are trained)",
    needs: ["segments"],
    uses: ["segments"],
    schema: z.object({ segments }).transform((row) => row.segments),
  },
];

/** Whole texts stand beside many other forms, as alpaca's own: a form of their own only where there is no other. */
const wholeText: Format = {
  name: "whole texts (all tokens behind the first are trained)",
  needs: ["text"],
  uses: ["text"],
  schema: z.object({ text: notEmpty }).transform(({ text: completion }) => ({ prompt: "", completion })),
};

const prompts: readonly Format[] = [
  {
    name: "alpaca (instruction, input, history and system make the prompt)",
    needs: ["instruction"],
    uses: alpacaFields,
    // Without them it is a plain text, as promptRow reads the fields of prompt collections.
    fits: ({ system, history: past }) =>
      (typeof system === "string" && system !== "") || (isList(past) && (past as unknown[]).length > 0),
    schema: z.object(alpaca).transform((row) => ({ prompt: alpacaTurns(row) })),
  },
  {
    name: "messages of OpenAI's form (without a last turn of the assistant)",
    needs: ["messages"],
    uses: ["messages", "system"],
    schema: z
      .object({ messages: messageTurns, system: optional })
      .transform(({ messages, system }, context) => open(withSystemTurn(system, messages), "messages", context)),
  },
  {
    name: "sharegpt conversations (without a last turn of the assistant)",
    needs: ["conversations"],
    uses: ["conversations", "system"],
    schema: z
      .object({ conversations: conversationTurns, system: optional })
      .transform(({ conversations, system }, context) =>
        open(withSystemTurn(system, conversations), "conversations", context),
      ),
  },
  {
    name: "OpenRLHF's context_messages",
    needs: ["context_messages"],
    uses: ["context_messages"],
    schema: z
      .object({ context_messages: messageTurns })
      .transform(({ context_messages: turns }, context) => open(turns, "context_messages", context)),
  },
  {
    name: "OpenRLHF's input",
    needs: ["input"],
    uses: ["input", "system"],
    fits: lacks("instruction"),
    schema: z.object({ input: z.union([notEmpty, messageTurns]), system: optional }).transform(({ input, system }) => ({
      prompt: withSystemTurn(system, typeof input === "string" ? [userTurn(input)] : input),
    })),
  },
];

/** Fields that promptRow reads by itself, as plain text. */
const collections = ["instruction", "question", "turns"];

/** Fields under which TRL has the rows of a kind; where they are, nothing is translated. */
const ours: Record<Exclude<RowKind, "any">, readonly (readonly string[])[]> = {
  preference: [["prompt", "chosen", "rejected"], ["prompt_ids"]],
  completion: [["prompt", "completion"], ["prompt_ids"]],
  prompt: [["prompt"], ["prompt_ids"]],
};

/**
 * A row under TRL's names, whatever tool its fields are of, and the format that it was recognised by; null: it is TRL's
 * already, or nobody's, which the reader of the row will say.
 * @throws TemporaError naming file, row and field: a malformed row, or one that can be read in two ways.
 */
export function translateRow(
  source: SourceRow,
  file: string,
  kind: RowKind,
): { row: SourceRow; format: string | null } {
  const { value } = source;
  const has = (field: string) => (value[field] ?? null) !== null;
  const place = { file: source.file ?? file, row: source.row };
  const sides = ["chosen", "rejected", "chosen_ids", "rejected_ids", "chosen_response", "rejected_response"];
  const exact = kind === "any" ? (sides.some(has) ? "preference" : "completion") : kind;
  if (ours[exact].some((fields) => fields.every(has))) {
    refuseSystem(value, exact, place);
    return { row: source, format: null };
  }
  const formats = { preference: preferences, completion: completions, prompt: prompts }[exact];
  const found = formats.filter(({ needs, fits }) => needs.every(has) && (fits?.(value) ?? true));
  if (found.length === 0 && exact === "completion" && has("text")) found.push(wholeText);
  const names = found.map(({ name }) => name);
  if (exact === "prompt") {
    const taken = found.flatMap(({ uses }) => uses);
    names.push(...collections.filter((field) => has(field) && !taken.includes(field)));
  }
  if (names.length > 1) throw ambiguous(names, place);
  const [format] = found;
  if (format === undefined) return { row: source, format: null };
  const kept = Object.fromEntries(Object.entries(value).filter(([field]) => !format.uses.includes(field)));
  return { row: { ...source, value: { ...kept, ...parsed(format, value, place) } }, format: format.name };
}

interface RowPlace {
  file: string;
  row: number;
}

function parsed({ schema }: Format, value: Record<string, unknown>, place: RowPlace): Record<string, unknown> {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const { path, message } = result.error.issues[0]!;
  const field = path.map((key, i) =>
    typeof key === "number" ? `[${key}]` : i === 0 ? String(key) : `.${String(key)}`,
  );
  throw new TemporaError(`${field.join("")}: ${schemaFault(message)}`, {
    where: { ...place, field: field.join("") },
    remedy: "Correct the row, or leave it out.",
  });
}

function ambiguous(names: readonly string[], place: RowPlace): TemporaError {
  return new TemporaError(`The row can be read in ${names.length} ways: as ${names.join(", or as ")}`, {
    where: place,
    remedy:
      "Say which fields are meant by --columns, as --columns prompt=question; --columns messages= leaves one out.",
  });
}

/** Names under which prompt and system are read as two turns. */
const both = {
  preference: "question=prompt",
  completion: "instruction=prompt,output=completion",
  prompt: "instruction=prompt",
};

/** TRL drops a column system, Axolotl makes a turn of it. */
function refuseSystem(value: Readonly<Record<string, unknown>>, kind: keyof typeof both, place: RowPlace): void {
  const { system, prompt, chosen } = value;
  if (typeof system !== "string" || system === "" || typeof prompt !== "string") return;
  const first = isList(chosen) ? (chosen as unknown[])[0] : null;
  if (isObject(first) && first.role === "system") return;
  const read =
    first === null ? `read both by --columns ${both[kind]}` : "make it the first turn of chosen and rejected";
  throw new TemporaError("The row has a prompt and a system: TRL reads the prompt alone, Axolotl both, as two turns", {
    where: { ...place, field: "system" },
    remedy: `Leave it out by --columns system=, or ${read}.`,
  });
}

/** The last turn apart: it must be the assistant's, with something before it. */
function split(turns: Turn[], field: string, context: z.RefinementCtx): Record<string, unknown> {
  if (turns.length > 1 && turns.at(-1)?.role === "assistant") {
    return { prompt: turns.slice(0, -1), completion: turns.slice(-1) };
  }
  context.addIssue({
    code: "custom",
    message: "must end with a turn of the assistant that answers another",
    path: [field],
  });
  return z.NEVER;
}

/** What comes before a last turn of the assistant. */
function open(turns: Turn[], field: string, context: z.RefinementCtx): Record<string, unknown> {
  const prompt = turns.at(-1)?.role === "assistant" ? turns.slice(0, -1) : turns;
  if (prompt.length > 0) return { prompt };
  context.addIssue({ code: "custom", message: "has no turn but the assistant's", path: [field] });
  return z.NEVER;
}
