/** A block of the engine's allocator: the next multiple of an eighth of the power of two below (allocator.cpp). */
export function blockBytes(bytes: number): number {
  let step = 64;
  while (step * 16 < bytes) step *= 2;
  if (bytes >= 2 ** 21) step = Math.max(step, 2 ** 16);
  return Math.ceil(Math.max(bytes, 64) / step) * step;
}

const chunkBytes = 8 * 2 ** 20;

/** Takes what the engine's arena takes for the same requests, in its first step: chunk after chunk, each not quite filled (arena.h). */
export class Arena {
  readonly #chunks: number[] = [];
  #current = 0;
  #offset = 0;

  take(bytes: number): void {
    const size = Math.ceil(bytes / 64) * 64;
    while (this.#current < this.#chunks.length && this.#offset + size > (this.#chunks[this.#current] as number)) {
      this.#current++;
      this.#offset = 0;
    }
    if (this.#current === this.#chunks.length) {
      this.#chunks.push(Math.max(size, chunkBytes));
      this.#offset = 0;
    }
    this.#offset += size;
  }

  /** What is taken meanwhile is given back. */
  scope(work: () => void): void {
    const [current, offset] = [this.#current, this.#offset];
    work();
    this.#current = current;
    this.#offset = offset;
  }

  /** Bytes of all chunks. */
  get held(): number {
    return this.#chunks.reduce((sum, chunk) => sum + blockBytes(chunk), 0);
  }
}
