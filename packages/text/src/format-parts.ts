import { isObject } from "@tempora/errors";
import { z } from "zod";

/** One turn, as TRL writes it; what else a file's turn holds is kept. */
export interface Turn {
  role: string;
  content: unknown;
  [further: string]: unknown;
}

export const notEmpty = z.string({ error: "must be a string" }).min(1, "is empty");
export const optional = z.string({ error: "must be a string" }).nullish();

export const userTurn = (content: string): Turn => ({ role: "user", content });
export const assistant = (content: string): Turn => ({ role: "assistant", content });

/** A system message first, unless there is none or the turns have their own. */
export function withSystemTurn(system: string | null | undefined, turns: readonly Turn[]): Turn[] {
  const none = (system ?? "") === "" || turns[0]?.role === "system";
  return none ? [...turns] : [{ role: "system", content: system }, ...turns];
}

/** Earlier rounds of alpaca rows: [question, answer] pairs. */
export const history = z
  .array(z.tuple([z.string(), z.string()], { error: "must be a pair of strings" }), {
    error: "must be a list of [question, answer] pairs",
  })
  .nullish();

/** LLaMA-Factory's reading: system, history, then instruction and input joined by a line end. */
export function alpacaTurns(row: {
  instruction: string;
  input?: string | null | undefined;
  system?: string | null | undefined;
  history?: [string, string][] | null | undefined;
}): Turn[] {
  const question = (row.input ?? "") === "" ? row.instruction : `${row.instruction}\n${row.input}`;
  const past = (row.history ?? []).flatMap(([before, answer]) => [userTurn(before), assistant(answer)]);
  return withSystemTurn(row.system, [...past, userTurn(question)]);
}

/** {role, content}; the reader of the row checks the content. */
const messageTurn = z.looseObject({
  role: z.string({ error: "must be a string" }).min(1, "must not be empty"),
  content: z.unknown(),
}) as unknown as z.ZodType<Turn>;

export const messageTurns = z.array(messageTurn, { error: "must be a list of {role, content}" }).min(1, "has no turns");

const roles: Readonly<Record<string, string>> = {
  human: "user",
  user: "user",
  gpt: "assistant",
  assistant: "assistant",
  system: "system",
  observation: "tool",
  tool: "tool",
};

/** sharegpt's {from, value}. */
const sharegptTurn = z
  .object({ from: z.string({ error: "must be a string" }), value: z.string({ error: "must be a string" }) })
  .transform(({ from, value }, context): Turn => {
    if (from === "function_call") return toolCalls(value, context);
    const role = roles[from];
    if (role !== undefined) return { role, content: value };
    const known = [...Object.keys(roles), "function_call"].join(", ");
    context.addIssue({ code: "custom", message: `is ${JSON.stringify(from)}; known are ${known}`, path: ["from"] });
    return z.NEVER;
  });

export const conversationTurns = z
  .array(sharegptTurn, { error: "must be a list of {from, value}" })
  .min(1, "has no turns");

/** One answer as a turn, in either tool's fields. */
export const oneTurn = z.unknown().transform((value, context): Turn => {
  const schema = isObject(value) && "from" in value ? sharegptTurn : messageTurn;
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  for (const { path, message } of result.error.issues) context.addIssue({ code: "custom", message, path });
  return z.NEVER;
});

const call = z.object({ name: z.string(), arguments: z.unknown() });

/** LLaMA-Factory's function_call: {name, arguments} as JSON text, or a list of them. */
function toolCalls(text: string, context: z.RefinementCtx): Turn {
  try {
    const value: unknown = JSON.parse(text);
    const calls = z
      .array(call)
      .min(1)
      .parse(Array.isArray(value) ? value : [value]);
    return {
      role: "assistant",
      content: "",
      tool_calls: calls.map(({ name, arguments: given }) => ({
        type: "function",
        function: { name, arguments: given },
      })),
    };
  } catch {
    const message = "of a function_call must be the JSON text of {name, arguments}, or of a list of them";
    context.addIssue({ code: "custom", message, path: ["value"] });
    return z.NEVER;
  }
}

const segment = z.object({
  label: z.boolean({ error: "must be true or false" }),
  text: z.string({ error: "must be a string" }),
});

/** Axolotl's template-free segments, of which those labelled true come last: a prompt and a completion of plain text. */
export const segments = z
  .array(segment, { error: "must be a list of {label, text}" })
  .min(1, "has no segments")
  .transform((list, context) => {
    const first = list.findIndex(({ label }) => label);
    const trained = first < 0 ? [] : list.slice(first);
    const join = (part: typeof list) => part.map(({ text }) => text).join("");
    if (first > 0 && trained.every(({ label }) => label)) {
      return { prompt: join(list.slice(0, first)), completion: join(trained) };
    }
    const message =
      "must be untrained segments, then trained ones: what follows a trained segment untrained cannot be read";
    context.addIssue({ code: "custom", message });
    return z.NEVER;
  });
