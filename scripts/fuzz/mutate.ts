/** Inputs made from good ones, each by random numbers of its own seed. */

let state = 0;

/** The numbers that follow are those of this input. */
export function seedInput(seed: number, index: number): void {
  state = (Math.imul(seed, 0x9e3779b1) ^ Math.imul(index + 1, 0x85ebca6b)) | 0;
}

export function random(): number {
  state = (state + 0x6d2b79f5) | 0;
  let t = Math.imul(state ^ (state >>> 15), 1 | state);
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
  return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
}

export const below = (count: number) => Math.floor(random() * count);
export const pick = <T>(list: readonly T[]): T => list[below(list.length)] as T;

/** Inputs are at most so long. */
export const maxInput = 1 << 16;

const numbers = [0, 1, 2, 0x7f, 0x80, 0xff, 0xffff, 0x7fffffff, 0x80000000, 0xffffffff];
const words = [
  "null",
  "{}",
  "[]",
  "-1",
  "1e999",
  "0",
  '""',
  "true",
  "\\u0000",
  "{{",
  "%}",
  "NaN",
  "9007199254740993",
  "\ud800",
  "\n",
  ",",
  '"',
  "[[[[",
  "}}",
].map((word) => Buffer.from(word));

/** One to eight changes: bits, bytes, numbers of four and eight bytes, pieces removed, doubled, moved from another seed, words put in. */
export function mutated(seeds: readonly Uint8Array[]): Uint8Array {
  let bytes = Buffer.from(pick(seeds));
  for (let left = 1 + below(8); left > 0; left--) {
    const at = below(bytes.length + 1);
    const to = Math.min(bytes.length, at + 1 + below(pick([4, 32, 512])));
    switch (below(9)) {
      case 0:
        if (at < bytes.length) bytes[at] = (bytes[at] as number) ^ (1 << below(8));
        break;
      case 1:
        if (at < bytes.length) bytes[at] = below(256);
        break;
      case 2:
        if (at + 4 <= bytes.length) bytes.writeUInt32LE(pick(numbers), at);
        break;
      case 3:
        if (at + 8 <= bytes.length) bytes.writeBigUInt64LE(BigInt(pick(numbers)) << BigInt(pick([0, 16, 31])), at);
        break;
      case 4:
        bytes = Buffer.concat([bytes.subarray(0, at), bytes.subarray(to)]);
        break;
      case 5:
        bytes = Buffer.concat([bytes.subarray(0, to), bytes.subarray(at)]);
        break;
      case 6: {
        const other = pick(seeds);
        const from = below(other.length);
        bytes = Buffer.concat([bytes.subarray(0, at), other.subarray(from, from + below(64)), bytes.subarray(at)]);
        break;
      }
      case 7:
        bytes = Buffer.concat([bytes.subarray(0, at), pick(words), bytes.subarray(to)]);
        break;
      case 8:
        bytes = bytes.subarray(0, at);
        break;
    }
  }
  return bytes.subarray(0, maxInput);
}
