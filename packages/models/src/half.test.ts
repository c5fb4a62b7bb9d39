import { expect, test } from "vitest";
import { halfBits, halves, narrowToHalves, widenHalves } from "./half.ts";

const words = Uint16Array.from({ length: 1 << 16 }, (_, word) => word);

test("every float16 has the value that the runtime's own has", () => {
  expect(halves).toEqual(new Float32Array(new Float16Array(words.buffer)));
  const out = new Float32Array(words.length);
  widenHalves(new Uint8Array(words.buffer), out);
  expect(out).toEqual(halves);
});

test("numbers round as the runtime rounds them: at, between and around all float16", () => {
  const finite = halves.filter((value) => Number.isFinite(value));
  const sorted = Float32Array.from(finite).sort();
  const between = sorted.slice(1).map((value, k) => (value + (sorted[k] as number)) / 2);
  const near = (scale: number) => between.map((value) => value * scale);
  const extremes = Float32Array.of(
    0,
    -0,
    65519.99,
    65520,
    65536,
    1e9,
    -1e9,
    1e-9,
    -1e-9,
    2 ** -25,
    2 ** -24,
    Infinity,
    -Infinity,
  );
  for (const values of [finite, between, near(1 + 2 ** -20), near(1 - 2 ** -20), extremes]) {
    const out = new Uint8Array(2 * values.length);
    narrowToHalves(values, out);
    expect(Buffer.compare(out, new Uint8Array(new Float16Array(values).buffer))).toBe(0);
  }
  expect(halves[halfBits(Number.NaN)]).toBeNaN();
});
