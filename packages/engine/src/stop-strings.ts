/** Decoding may treat the first tokens of a piece differently (a leading space, a half character): a margin before the match. */
const margin = 4;

/** Tells which token completes one of some texts, from the end of the ids only. */
export class StopStrings {
  readonly #strings: readonly string[];
  readonly #decode: (ids: number[]) => string;
  readonly #longest: number;

  constructor(strings: readonly string[], decode: (ids: number[]) => string) {
    this.#strings = strings;
    this.#decode = decode;
    this.#longest = Math.max(...strings.map((text) => text.length));
  }

  /** True when a text is there now that was not before the last id: ask after every id. */
  completedBy(ids: readonly number[]): boolean {
    let tokens = this.#longest + margin;
    let tail = this.#tail(ids, tokens);
    // Tokens without text of their own (special ones, parts of a character) push the match further back.
    while (tail.length < this.#longest + margin && tokens < ids.length) {
      tokens *= 2;
      tail = this.#tail(ids, tokens);
    }
    return this.#strings.some((text) => tail.includes(text));
  }

  #tail(ids: readonly number[], tokens: number): string {
    return this.#decode(ids.slice(-tokens));
  }
}
