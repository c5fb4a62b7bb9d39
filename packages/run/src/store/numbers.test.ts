import { describe, expect, it } from "vitest";
import { NumberSet, Numbers } from "./numbers.ts";

describe("NumberSet", () => {
  it("holds what a Set holds, small numbers and those beyond 32 bits", () => {
    const numbers = new NumberSet();
    const expected = new Set<number>();
    for (let k = 0; k < 30_000; k++) {
      const value = k % 3 === 0 ? (k * 7919) % 5000 : (((k * 7919) % 9001) * 10_000 + (k % 4)) * 10_000 + (k % 5);
      expect(numbers.add(value)).toBe(!expected.has(value));
      expected.add(value);
    }
    expect(numbers.size).toBe(expected.size);
    for (const value of expected) expect(numbers.has(value)).toBe(true);
    expect([1e15, 5001, 10_009].map((value) => numbers.has(value))).toEqual([false, false, false]);
  });

  it("finds a place for the largest whole number and for zero", () => {
    const numbers = new NumberSet();
    expect(numbers.has(0)).toBe(false);
    expect(numbers.add(Number.MAX_SAFE_INTEGER)).toBe(true);
    expect(numbers.add(0)).toBe(true);
    expect(numbers.add(0)).toBe(false);
    expect([0, Number.MAX_SAFE_INTEGER].every((value) => numbers.has(value))).toBe(true);
  });
});

describe("Numbers", () => {
  it("keeps what was pushed through all its growth", () => {
    const numbers = new Numbers(Float64Array);
    for (let k = 0; k < 1000; k++) numbers.push(k * 2 ** 33);
    expect([...numbers.list]).toEqual(Array.from({ length: 1000 }, (_, k) => k * 2 ** 33));
  });
});
