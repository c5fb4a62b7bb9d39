import type { Tokenizer } from "./tokenizer.ts";

/** What stands at the end of a text whose last character is not whole yet. */
const incomplete = "\uFFFD";
/** A character has at most four bytes, so a token that three more did not make whole is no part of one. */
const mostOpenTokens = 3;

/**
 * Text of ids that come one by one. A token alone has no text: its bytes may be part of a character, and decoders treat the
 * first token of a text differently. So the difference is taken between two decodings that begin with the same earlier
 * token, and given out when its last character is whole.
 */
export class TextStream {
  readonly #tokenizer: Pick<Tokenizer, "decode">;
  /** The ids that are not given out yet, and those of the piece before them. */
  #before: number[] = [];
  #open: number[] = [];

  constructor(tokenizer: Pick<Tokenizer, "decode">) {
    this.#tokenizer = tokenizer;
  }

  /** The text that is whole with this id; "" while a character is open. */
  push(id: number): string {
    this.#open.push(id);
    if (!this.#text(this.#open).endsWith(incomplete)) return this.#give(this.#open.length);
    return this.#give(Math.max(0, this.#open.length - mostOpenTokens));
  }

  /** What is left at the end of the ids. */
  end(): string {
    return this.#give(this.#open.length);
  }

  #text(ids: readonly number[]): string {
    const before = this.#tokenizer.decode(this.#before);
    return this.#tokenizer.decode([...this.#before, ...ids]).slice(before.length);
  }

  /** Gives out the text of the first open ids. */
  #give(count: number): string {
    if (count === 0) return "";
    const given = this.#open.splice(0, count);
    const text = this.#text(given);
    // Ids without text, as special ones have none, are no beginning to compare with.
    if (text !== "") this.#before = given;
    return text;
  }
}
