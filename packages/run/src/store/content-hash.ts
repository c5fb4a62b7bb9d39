import { createHash } from "node:crypto";
import { canonical, type Json } from "@tempora/errors";

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

  /** Anything that JSON can say; the order of an object's fields means nothing. */
  json(value: Json): this {
    return this.text(canonical(value));
  }

  digest(): string {
    return this.#hash.digest("hex");
  }
}
