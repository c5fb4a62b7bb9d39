import { TemporaError } from "@tempora/errors";
import type { Tokenizer } from "./tokenizer.ts";

/**
 * Ids that end a completion, everywhere: those that the checkpoint states (generation_config.json and config.json), the
 * tokenizer's EOS, which ends completions given as strings, and the token with which the chat template closes a turn.
 * A base model states only the first kind: after training on conversations it would never stop.
 */
export function endTokens(stated: readonly number[], tokenizer: Tokenizer): number[] {
  const ids = [...stated];
  if (tokenizer.eosId !== null) ids.push(tokenizer.eosId);
  const closing = closingToken(tokenizer);
  if (closing !== null) ids.push(closing);
  return [...new Set(ids)].sort((a, b) => a - b);
}

/** The ids of a completion without the end token that it may end in. */
export function withoutEnd(ids: readonly number[], ends: readonly number[]): number[] {
  const last = ids.at(-1);
  return last !== undefined && ends.includes(last) ? ids.slice(0, -1) : [...ids];
}

/** Stands for an answer; no template says it by itself. */
const answer = "\uE000answer\uE000";

/** The first added token behind an assistant's answer that ends a conversation; null where the template closes by text. */
function closingToken(tokenizer: Tokenizer): number | null {
  if (!tokenizer.hasChatTemplate) return null;
  const messages = [
    { role: "user", content: "?" },
    { role: "assistant", content: answer },
  ];
  let text: string;
  try {
    text = tokenizer.applyChatTemplate(messages, { addGenerationPrompt: false });
  } catch (error) {
    // A template for other roles: it says so when a conversation needs it.
    if (error instanceof TemporaError) return null;
    throw error;
  }
  const at = text.lastIndexOf(answer);
  if (at < 0) return null;
  return tokenizer.encode(text.slice(at + answer.length)).find((id) => tokenizer.isAdded(id)) ?? null;
}
