/** A block of the engine's allocator: the next multiple of an eighth of the power of two below, or of 2 MiB (allocator.cpp). */
export function blockBytes(bytes: number): number {
  let step = 64;
  while (step * 16 < bytes && step < 2 ** 21) step *= 2;
  if (bytes >= 2 ** 21) step = Math.max(step, 2 ** 16);
  return Math.ceil(Math.max(bytes, 64) / step) * step;
}

const chunkBytes = 2 * 2 ** 20;

/** Bytes of several arenas together, and of what operations take beside them. */
export class Held {
  #now = 0;
  #most = 0;

  add(bytes: number): void {
    this.#now += bytes;
    this.#most = Math.max(this.#most, this.#now);
  }

  /** Taken by an operation and given back. */
  pass(bytes: number): void {
    this.add(blockBytes(bytes));
    this.#now -= blockBytes(bytes);
  }

  /** What was held at once at most since this was asked last. */
  takeMost(): number {
    const most = this.#most;
    this.#most = this.#now;
    return most;
  }
}

/** Takes what the engine's arena takes for the same requests (arena.h). */
export class Arena {
  #chunks: number[] = [];
  #current = 0;
  #offset = 0;
  #used = 0;
  #highWater = 0;
  #expected = 0;

  constructor(readonly held: Held) {}

  take(bytes: number): void {
    const size = Math.ceil(bytes / 64) * 64;
    while (this.#current < this.#chunks.length && this.#offset + size > (this.#chunks[this.#current] as number)) {
      this.#current++;
      this.#offset = 0;
    }
    if (this.#current === this.#chunks.length) this.#addChunk(size);
    this.#offset += size;
    this.#used += size;
    this.#highWater = Math.max(this.#highWater, this.#used);
  }

  #addChunk(size: number): void {
    const least = this.#chunks.length === 0 ? this.#highWater : 0;
    const chunk = Math.max(size, chunkBytes, least, this.#expected - this.#used);
    this.#chunks.push(chunk);
    this.held.add(blockBytes(chunk));
    this.#offset = 0;
  }

  /** So many more bytes will be taken. */
  expect(more: number): void {
    this.#expected = this.#used + more;
  }

  get used(): number {
    return this.#used;
  }

  /** What is taken meanwhile is given back; where nothing is left in use, chunks that are not quite filled too. */
  scope(work: () => void): void {
    const [current, offset, used] = [this.#current, this.#offset, this.#used];
    work();
    [this.#current, this.#offset, this.#used] = [current, offset, used];
    if (used === 0 && this.#chunks.length > 1 && sum(this.#chunks) > this.#highWater * (17 / 16)) this.#giveBack();
  }

  /** Another step begins. */
  reset(): void {
    [this.#current, this.#offset, this.#used, this.#expected] = [0, 0, 0, 0];
    if (this.#chunks.length > 1) this.#giveBack();
  }

  #giveBack(): void {
    this.held.add(-sum(this.#chunks.map(blockBytes)));
    this.#chunks = [];
    this.#current = 0;
  }
}

const sum = (values: readonly number[]) => values.reduce((total, value) => total + value, 0);
