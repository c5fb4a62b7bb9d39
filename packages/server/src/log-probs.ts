import type { Tokenizer } from "@tempora/text";
import type { LoggedToken, TokenLogProb } from "./choice.ts";

/** `logprobs` of /v1/completions. */
export interface CompletionLogProbs {
  tokens: string[];
  token_logprobs: (number | null)[];
  top_logprobs: (Record<string, number> | null)[];
  text_offset: number[];
}

/** @param offset Where the tokens' text begins in the choice's text. */
export function completionLogProbs(
  tokenizer: Tokenizer,
  tokens: readonly LoggedToken[],
  offset: number,
): CompletionLogProbs {
  return {
    tokens: tokens.map(({ id }) => tokenizer.tokenText(id)),
    token_logprobs: tokens.map(({ logProb }) => logProb),
    top_logprobs: tokens.map((token) => topByText(tokenizer, token)),
    text_offset: tokens.map((token) => offset + token.offset),
  };
}

/** The most likely tokens and the token itself. Of tokens with one text, such as parts of characters, the likelier stands. */
function topByText(tokenizer: Tokenizer, { id, logProb, top }: LoggedToken): Record<string, number> | null {
  if (logProb === null) return null;
  const byText = new Map<string, number>();
  for (const one of [...top, { id, logProb }]) {
    const text = tokenizer.tokenText(one.id);
    byText.set(text, Math.max(one.logProb, byText.get(text) ?? Number.NEGATIVE_INFINITY));
  }
  return Object.fromEntries(byText);
}

interface ChatLogProb {
  token: string;
  logprob: number;
  /** null where the token is no text of its own, but a part of a character. */
  bytes: number[] | null;
}

/** `logprobs` of /v1/chat/completions. */
export interface ChatLogProbs {
  content: (ChatLogProb & { top_logprobs: ChatLogProb[] })[];
  refusal: null;
}

export function chatLogProbs(tokenizer: Tokenizer, tokens: readonly LoggedToken[]): ChatLogProbs {
  const encoder = new TextEncoder();
  const entry = ({ id, logProb }: TokenLogProb): ChatLogProb => {
    const token = tokenizer.tokenText(id);
    return { token, logprob: logProb, bytes: token.includes("\uFFFD") ? null : [...encoder.encode(token)] };
  };
  const content = tokens.map(({ id, logProb, top }) => ({
    ...entry({ id, logProb: logProb as number }),
    top_logprobs: top.map(entry),
  }));
  return { content, refusal: null };
}
