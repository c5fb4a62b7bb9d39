import { canonical, type Json } from "@tempora/errors";
import type { Conversation, Message } from "./types.ts";

/**
 * Splits off what chosen and rejected share at their beginning, exactly as TRL does (data_utils: extract_prompt): by turns
 * of conversations, by characters of strings, leaving a space to the completions. When one is the beginning of the other,
 * the last turn or character of the shorter one still counts as its completion.
 */
export function extractPrompt(
  chosen: Conversation,
  rejected: Conversation,
): { prompt: Conversation; chosen: Conversation; rejected: Conversation } {
  if (typeof chosen !== "string" && typeof rejected !== "string") {
    const at = divergence(chosen, rejected, sameMessage);
    return { prompt: chosen.slice(0, at), chosen: chosen.slice(at), rejected: rejected.slice(at) };
  }
  // Python counts code points.
  const [a, b] = [Array.from(chosen as string), Array.from(rejected as string)];
  let at = divergence(a, b, (x, y) => x === y);
  if (at > 0 && a[at] !== b[at] && a[at - 1] === " ") at -= 1;
  const text = (points: readonly string[]) => points.join("");
  return { prompt: text(a.slice(0, at)), chosen: text(a.slice(at)), rejected: text(b.slice(at)) };
}

function divergence<T>(a: readonly T[], b: readonly T[], same: (x: T, y: T) => boolean): number {
  const shared = Math.min(a.length, b.length);
  for (let i = 0; i < shared; i++) {
    if (!same(a[i]!, b[i]!)) return i;
  }
  return Math.max(0, shared - 1);
}

/** Field order does not tell two messages apart. */
function sameMessage(a: Message, b: Message): boolean {
  return canonical(a as unknown as Json) === canonical(b as unknown as Json);
}
