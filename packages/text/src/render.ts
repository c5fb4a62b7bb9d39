import type { Conversation, Message } from "./types.ts";

/** How conversations become text, beside what their rows say. Part of what a prompt is: other options, other tokens. */
export interface RenderOptions {
  /** What a chat template that asks for the date is told; default: this moment. A run gives the day that it began. */
  now?: Date | undefined;
  /** A system message put before every prompt that has none. A plain prompt becomes a user's turn behind it. */
  system?: string | null | undefined;
  /** Variables of the chat template, such as enable_thinking. A row's own override them. */
  variables?: Readonly<Record<string, unknown>> | undefined;
}

/** The prompt with the system message before it, unless it has one. */
export function withSystem(prompt: Conversation, system: string | null | undefined): Conversation {
  if (system === null || system === undefined) return prompt;
  const turns: Message[] = typeof prompt === "string" ? [{ role: "user", content: prompt }] : prompt;
  const has = turns.some(({ role }) => role === "system" || role === "developer");
  return has ? prompt : [{ role: "system", content: system }, ...turns];
}

/** An answer in the form of its prompt: TRL wants both as strings or both as messages. */
export function asCompletion(prompt: Conversation, completion: Conversation): Conversation {
  if (typeof prompt === "string" || typeof completion !== "string") return completion;
  return [{ role: "assistant", content: completion }];
}

/**
 * A conversation as people and judges read it: one turn as it is, several with their roles, what the model may call and
 * has called as JSON.
 */
export function shownText(prompt: Conversation, variables: Readonly<Record<string, unknown>> = {}): string {
  const tools = Array.isArray(variables.tools) ? variables.tools.map((tool) => JSON.stringify(tool)) : [];
  const head = tools.length === 0 ? "" : `tools: ${tools.join("\n")}\n\n`;
  if (typeof prompt === "string") return head + prompt;
  if (prompt.length === 1 && head === "") return turnText(prompt[0] as Message);
  return head + prompt.map((turn) => `${turn.role}: ${turnText(turn)}`).join("\n\n");
}

function turnText(turn: Message): string {
  const { content, tool_calls: calls } = turn as Message & { tool_calls?: unknown };
  return calls === undefined ? (content ?? "") : `${content ?? ""}${JSON.stringify(calls)}`;
}

/** The columns of a row that say what `variables` says, as TRL names them. */
export function templateColumns(variables: Readonly<Record<string, unknown>> = {}): Record<string, unknown> {
  const { tools, ...others } = variables;
  return {
    ...(tools === undefined ? {} : { tools }),
    ...(Object.keys(others).length === 0 ? {} : { chat_template_kwargs: others }),
  };
}

/** Midnight, local time, of a day written as 2026-01-31; null for anything else. */
export function dayOf(text: string): Date | null {
  const parts = /^(\d{4})-(\d{2})-(\d{2})$/.exec(text)?.slice(1).map(Number);
  if (parts === undefined) return null;
  const [year, month, day] = parts as [number, number, number];
  const date = new Date(year, month - 1, day);
  return date.getMonth() === month - 1 && date.getDate() === day ? date : null;
}

/** A day as 2026-01-31, local time. */
export function dayText(date: Date): string {
  const two = (number: number) => String(number).padStart(2, "0");
  return `${String(date.getFullYear()).padStart(4, "0")}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
}
