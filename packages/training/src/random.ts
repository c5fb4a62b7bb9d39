import { createHash } from "node:crypto";

/** A seed in [0, 2^48) for one purpose of a run: equal parts give equal seeds, on every machine. */
export function deriveSeed(...parts: readonly (string | number)[]): number {
  return createHash("sha256").update(JSON.stringify(parts)).digest().readUIntBE(0, 6);
}

/** The number by which a generation keys the random numbers of what `text` names: 48 bits of its hash. */
export function keyOf(text: string): number {
  return createHash("sha256").update(text).digest().readUIntBE(0, 6);
}

/** A generator of numbers in [0, 1): splitmix64 (Steele, Lea and Flood 2014), upper 53 bits. */
export function uniforms(seed: number): () => number {
  const mask = (1n << 64n) - 1n;
  let state = BigInt(seed) & mask;
  return () => {
    state = (state + 0x9e3779b97f4a7c15n) & mask;
    let z = state;
    z = ((z ^ (z >> 30n)) * 0xbf58476d1ce4e5b9n) & mask;
    z = ((z ^ (z >> 27n)) * 0x94d049bb133111ebn) & mask;
    z ^= z >> 31n;
    return Number(z >> 11n) / 2 ** 53;
  };
}

/** The numbers 0..count-1 in an order that only the seed decides (Fisher and Yates). */
export function permutation(count: number, seed: number): number[] {
  const order = Array.from({ length: count }, (_, index) => index);
  const next = uniforms(seed);
  for (let last = count - 1; last > 0; last--) {
    const other = Math.floor(next() * (last + 1));
    [order[last], order[other]] = [order[other] as number, order[last] as number];
  }
  return order;
}
