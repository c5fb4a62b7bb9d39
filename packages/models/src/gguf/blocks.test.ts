import { oracle, readJson } from "@tempora/testing";
import { expect, test } from "vitest";
import { blockFormats, typeName } from "./blocks.ts";
import { encodeAs } from "./encode.ts";

interface Case {
  type: string;
  id: number;
  block_elements: number;
  block_bytes: number;
  /** base64: raw blocks, and the float32 values that the gguf package reads in them. */
  bytes: string;
  values: string;
  count: number;
}

const cases = readJson<Case[]>(oracle("gguf", "blocks.json"));

function bytesOf(base64: string): Uint8Array {
  return Uint8Array.from(Buffer.from(base64, "base64"));
}

test.each(cases.map((one) => [one.type, one] as const))("%s decodes to the values that gguf reads", (_, one) => {
  const format = blockFormats[one.id]!;
  expect(format).toMatchObject({ name: one.type, elements: one.block_elements, bytes: one.block_bytes });
  const values = new Float32Array(one.count);
  format.decode(bytesOf(one.bytes), values);
  const expected = new Float32Array(bytesOf(one.values).buffer);
  const worst = values.reduce((most, value, i) => {
    const difference = Math.abs(value - expected[i]!) / Math.max(Math.abs(expected[i]!), 1e-30);
    return Math.max(most, value === expected[i] ? 0 : difference);
  }, 0);
  expect(worst).toBeLessThanOrEqual(1e-6);
});

test("every type that is read has a case, but F32", () => {
  const read = Object.values(blockFormats).map(({ name }) => name);
  expect(new Set(["F32", ...cases.map(({ type }) => type)])).toEqual(new Set(read));
});

test("the types that are refused are called by their names", () => {
  expect([10, 11, 16, 23, 34].map(typeName)).toEqual(["Q2_K", "Q3_K", "IQ2_XXS", "IQ4_XS", "TQ1_0"]);
});

const where = { file: "out.gguf", field: "x" };

test.each([
  ["F16", 2 ** -11],
  ["BF16", 2 ** -8],
  ["Q8_0", 1 / 127],
] as const)("values written as %s come back within a rounding", (type, bound) => {
  const values = Float32Array.from({ length: 256 }, (_, i) => Math.sin(i * i) * 2);
  const format = Object.values(blockFormats).find(({ name }) => name === type)!;
  const read = new Float32Array(values.length);
  format.decode(encodeAs(type, values, where), read);
  expect(Math.max(...values.map((value, i) => Math.abs(value - read[i]!)))).toBeLessThan(2 * bound);
});

test("bf16 rounds to even, Q8_0 halves away from zero, as llama.cpp's quantizer", () => {
  const even = new Uint16Array(encodeAs("BF16", Float32Array.of(1 + 2 ** -8, 1 + 3 * 2 ** -8), where).buffer);
  expect([...even]).toEqual([0x3f80, 0x3f82]);
  const values = new Float32Array(32);
  values.set([127, 2.5, -2.5, 0.49]);
  expect([...new Int8Array(encodeAs("Q8_0", values, where).buffer)].slice(2, 6)).toEqual([127, 3, -3, 0]);
});

test("a value that F16 cannot hold is refused by its tensor", () => {
  expect(() => encodeAs("F16", Float32Array.of(1, 70_000), where)).toThrow(/beyond 65504.*out.gguf, field x.*bf16/);
});
