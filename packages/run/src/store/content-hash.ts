import { createHash } from "node:crypto";

/**
 * A SHA-256 that is fed piece by piece: the hash of a hundred thousand prompts needs no text that holds them all. Every
 * piece goes in with its length, so that ["ab", "c"] and ["a", "bc"] differ.
 */
export class ContentHash {
  readonly #hash = createHash("sha256");

  text(value: string): this {
    const bytes = Buffer.from(value);
    this.#hash.update(`t${bytes.length} `).update(bytes);
    return this;
  }

  /** Token ids. */
  ids(value: readonly number[]): this {
    this.#hash.update(`i${value.length} `).update(new Uint8Array(Int32Array.from(value).buffer));
    return this;
  }

  numbers(...value: readonly number[]): this {
    this.#hash.update(`n${value.length} `).update(new Uint8Array(Float64Array.from(value).buffer));
    return this;
  }

  digest(): string {
    return this.#hash.digest("hex");
  }
}
