import type { RenderOptions } from "./render.ts";
import type { Tokenizer } from "./tokenizer.ts";

/** A piece of a text: ours, or somebody else's, in which nothing is a special token whatever it spells. */
export type TextPart = string | { untrusted: string };

/** The whole text, for people. */
export function partsText(parts: readonly TextPart[]): string {
  return parts.map(contentOf).join("");
}

/**
 * Token ids of a text whose untrusted parts cannot break out of it: an answer that spells "<|im_end|>" is read as these
 * characters. Where nothing untrusted spells a token, the ids are those of the whole text.
 */
export function encodeParts(parts: readonly TextPart[], tokenizer: Tokenizer, { special = false } = {}): number[] {
  const whole = partsText(parts);
  const ids = tokenizer.encode(whole, { special });
  const sections = splitAtOwnTokens(parts, tokenizer);
  const own = sections.flatMap(({ token }) => (token === null ? [] : [token]));
  const { before, behind } = special ? tokensAround(tokenizer) : { before: [], behind: [] };
  if (sameTokens(ids, [...before, ...own, ...behind], tokenizer)) return ids;
  const inside = sections.flatMap(({ text, token }) => (token === null ? tokenizer.encodePlain(text) : [token]));
  return [...before, ...inside, ...behind];
}

/** What the tokenizer puts around a text of its own, such as BOS. */
function tokensAround(tokenizer: Tokenizer): { before: number[]; behind: number[] } {
  const ids = tokenizer.encode("a", { special: true });
  const inner = tokenizer.encode("a").length;
  const at = ids.findIndex((id) => !tokenizer.isAdded(id));
  return { before: ids.slice(0, at), behind: ids.slice(at + inner) };
}

/** Token ids of a user's turn with its generation prompt; without a chat template, of the text itself. */
export function encodeUserTurn(
  parts: readonly TextPart[],
  tokenizer: Tokenizer,
  { variables = {}, now }: Pick<RenderOptions, "variables" | "now"> = {},
): number[] {
  if (!tokenizer.hasChatTemplate) return encodeParts(parts, tokenizer, { special: true });
  const render = (content: string) =>
    tokenizer.applyChatTemplate([{ role: "user", content }], { addGenerationPrompt: true, variables, now });
  return encodeParts(renderParts(parts, render), tokenizer);
}

/**
 * The parts of a text that is rendered around others. What renders sees stand-ins for untrusted parts: what a template
 * does with a text that holds "</think>" is done for trusted text only.
 * @param beside Trusted text that `render` adds of its own.
 */
export function renderParts(
  parts: readonly TextPart[],
  render: (content: string) => string,
  beside: readonly string[] = [],
): TextPart[] {
  const trusted = parts.filter((part) => typeof part === "string");
  const mark = unusedMark([...trusted, ...beside].join(""));
  const content = parts.map((part, i) => (typeof part === "string" ? part : `${mark}${i}${mark}`)).join("");
  const pieces = render(content).split(new RegExp(`${mark}(\\d+)${mark}`, "u"));
  return pieces.map((piece, i) => (i % 2 === 0 ? piece : (parts[Number(piece)] as TextPart)));
}

function contentOf(part: TextPart): string {
  return typeof part === "string" ? part : part.untrusted;
}

/** A character that the text does not hold, of those that mean nothing. */
function unusedMark(text: string): string {
  for (let code = 0xe000; ; code++) {
    const mark = String.fromCodePoint(code);
    if (!text.includes(mark)) return mark;
  }
}

interface Section {
  text: string;
  /** Set where the section is a token of our own text. */
  token: number | null;
}

/** The text, cut at the added tokens that our own parts spell. */
function splitAtOwnTokens(parts: readonly TextPart[], tokenizer: Tokenizer): Section[] {
  const sections: Section[] = [];
  let text = "";
  const cut = () => {
    if (text !== "") sections.push({ text, token: null });
    text = "";
  };
  for (const part of parts) {
    if (typeof part !== "string") {
      text += part.untrusted;
      continue;
    }
    for (const piece of tokenizer.splitAdded(part)) {
      if (piece.token === null) text += piece.text;
      else {
        cut();
        sections.push(piece);
      }
    }
  }
  cut();
  return sections;
}

/** Whether the added tokens among the ids are the expected ones. An unknown word is no token that a text spells. */
function sameTokens(ids: readonly number[], expected: readonly number[], tokenizer: Tokenizer): boolean {
  const tokens = ids.filter((id) => tokenizer.isAdded(id) && id !== tokenizer.unknownId);
  const wanted = expected.filter((id) => id !== tokenizer.unknownId);
  return tokens.length === wanted.length && tokens.every((id, i) => id === wanted[i]);
}
