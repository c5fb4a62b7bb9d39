import type { BatchToken } from "@tempora/engine";
import { TextStream, type Tokenizer } from "@tempora/text";
import { StopFinder } from "./stop-finder.ts";

/** A token that the model gives a probability. */
export interface TokenLogProb {
  id: number;
  logProb: number;
}

/** A token of a text with what was asked about it. */
export interface LoggedToken {
  id: number;
  /** null for the first token of a prompt, which nothing predicts. */
  logProb: number | null;
  /** The most likely tokens in its place, best first; empty unless asked for. */
  top: readonly TokenLogProb[];
  /** Where its text begins in the choice's text, in UTF-16 units. */
  offset: number;
}

/** What became known of a choice since it was last looked at. */
export interface Piece {
  text: string;
  tokens: LoggedToken[];
  finishReason: "stop" | "length" | null;
}

/** One completion on its way from token ids to text, up to a stop string. What nobody has read yet is kept as one piece. */
export class Choice {
  readonly index: number;
  readonly #stream: TextStream;
  readonly #stop: StopFinder;
  readonly #endTokens: readonly number[];
  #tokens: LoggedToken[] = [];
  #text = "";
  /** Length of the text that was ever released, and of all text so far. */
  #released = 0;
  #length = 0;
  #finishReason: "stop" | "length" | null = null;
  #told = false;
  #ids = 0;

  constructor(index: number, tokenizer: Tokenizer, stop: readonly string[], endTokens: readonly number[]) {
    this.index = index;
    this.#stream = new TextStream(tokenizer);
    this.#stop = new StopFinder(stop);
    this.#endTokens = endTokens;
  }

  get finished(): boolean {
    return this.#finishReason !== null;
  }

  /** Tokens that were generated. */
  get newTokens(): number {
    return this.#ids;
  }

  /** Something is there that `read` was not asked for yet. */
  get unread(): boolean {
    return this.#text !== "" || (this.finished && !this.#told);
  }

  /** Takes the next token in. Returns true when a stop string ends the choice with it. */
  take({ id, logProb, top = [], finishReason }: BatchToken): boolean {
    if (this.finished) return true;
    this.#ids++;
    this.#tokens.push({ id, logProb, top, offset: this.#length });
    const ended = finishReason === "stop" && this.#endTokens.includes(id);
    const whole = (ended ? "" : this.#stream.push(id)) + (finishReason === null ? "" : this.#stream.end());
    this.#length += whole.length;
    const { text, stopped } = this.#stop.push(whole);
    this.#release(text);
    if (stopped) {
      this.#tokens = this.#tokens.filter(({ offset }) => offset < this.#released);
      this.#finishReason = "stop";
    } else if (finishReason !== null) {
      this.#release(this.#stop.end());
      this.#finishReason = finishReason;
    }
    return stopped;
  }

  /** Ends a choice of which no token was asked for. */
  finishEmpty(): void {
    this.#finishReason ??= "length";
  }

  /** What came since the last call. Tokens come when their text does. */
  read(): Piece {
    const known = this.finished
      ? this.#tokens.length
      : this.#tokens.findIndex(({ offset }) => offset >= this.#released);
    const tokens = this.#tokens.splice(0, known < 0 ? this.#tokens.length : known);
    const piece = { text: this.#text, tokens, finishReason: this.#finishReason };
    this.#text = "";
    this.#told = this.finished;
    return piece;
  }

  #release(text: string): void {
    this.#text += text;
    this.#released += text.length;
  }
}
