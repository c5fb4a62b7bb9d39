import { expect, test } from "vitest";
import { canonical, hashJson, isObject } from "./index.ts";

test("canonical JSON sorts keys at every depth and drops what is undefined", () => {
  expect(canonical({ b: 1, a: [{ d: null, c: "x" }], e: undefined })).toBe('{"a":[{"c":"x","d":null}],"b":1}');
});

test("equal values have one hash, in whatever order their fields were written", () => {
  expect(hashJson({ a: 1, b: [2] })).toBe(hashJson({ b: [2], a: 1 }));
  expect(hashJson({ a: 1 })).not.toBe(hashJson({ a: "1" }));
});

test.each([
  [{}, true],
  [null, false],
  [[], false],
  ["{}", false],
  [undefined, false],
])("%j is a JSON object: %s", (value, is) => {
  expect(isObject(value)).toBe(is);
});
