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
