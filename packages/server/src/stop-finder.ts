/** Lets text through up to the first of some stop strings; what may be the beginning of one is held back. */
export class StopFinder {
  readonly #strings: readonly string[];
  #held = "";

  constructor(strings: readonly string[]) {
    this.#strings = strings;
  }

  /** Takes more text in. Returns what is free to give out; `stopped` when a stop string, which is not given out, came. */
  push(text: string): { text: string; stopped: boolean } {
    const all = this.#held + text;
    const starts = this.#strings.map((string) => all.indexOf(string)).filter((start) => start >= 0);
    if (starts.length > 0) {
      this.#held = "";
      return { text: all.slice(0, Math.min(...starts)), stopped: true };
    }
    const kept = Math.max(0, ...this.#strings.map((string) => overlap(all, string)));
    this.#held = all.slice(all.length - kept);
    return { text: all.slice(0, all.length - kept), stopped: false };
  }

  /** What was held back and became no stop string. */
  end(): string {
    const held = this.#held;
    this.#held = "";
    return held;
  }
}

/** Length of the longest end of `text` that `string` begins with. */
function overlap(text: string, string: string): number {
  let length = Math.min(text.length, string.length - 1);
  while (length > 0 && !text.endsWith(string.slice(0, length))) length--;
  return length;
}
