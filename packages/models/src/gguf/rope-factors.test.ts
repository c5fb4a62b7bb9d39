import { expect, test } from "vitest";
import { ropeDivisors, scalingOfDivisors, shortest } from "./rope-factors.ts";

const llama3 = (factor: number, lowFreqFactor: number, highFreqFactor: number, originalMaxPositions: number) =>
  ({ type: "llama3", factor, lowFreqFactor, highFreqFactor, originalMaxPositions }) as const;

test.each([
  ["Llama 3.1", llama3(8, 1, 4, 8192), 500_000, 128],
  ["Llama 3.2", llama3(32, 1, 4, 8192), 500_000, 64],
  ["a small one", llama3(8, 1, 4, 64), 500_000, 16],
])("the scaling of %s is found from its divisors", (_, scaling, theta, headDim) => {
  expect(scalingOfDivisors(ropeDivisors(theta, headDim, scaling), theta, headDim)).toEqual(scaling);
});

test("parameters that are not the usual ones are found up to what cannot be told apart", () => {
  const divisors = ropeDivisors(10_000, 64, llama3(4, 2, 6, 3000));
  const found = scalingOfDivisors(divisors, 10_000, 64);
  expect(found).toEqual(llama3(4, 1, 3, 1500));
});

test("equal divisors are a linear scaling, divisors of another kind are none", () => {
  expect(scalingOfDivisors(new Float32Array(32).fill(2), 10_000, 64)).toEqual({ type: "linear", factor: 2 });
  const long = Float32Array.from({ length: 32 }, (_, i) => 1 + i * i);
  expect(scalingOfDivisors(long, 10_000, 64)).toBeNull();
});

test("a float32 is told by its fewest digits", () => {
  expect([1e-5, 500_000, 1e-6, 0.1].map((value) => shortest(Math.fround(value)))).toEqual([1e-5, 500_000, 1e-6, 0.1]);
});
