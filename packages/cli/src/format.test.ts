import { expect, test } from "vitest";
import { formatBytes, formatCount, formatCounted, formatDuration } from "./format.ts";

test.each([
  [0, "0.0 s"],
  [0.0031, "4 ms"],
  [0.0996, "0.1 s"],
  [9.94, "9.9 s"],
  [9.96, "10 s"],
  [59.4, "59 s"],
  [59.6, "1 min 0 s"],
  [185, "3 min 5 s"],
  [3599.6, "1 h 0 min"],
  [7170, "2 h 0 min"],
  [7800, "2 h 10 min"],
])("%d seconds are %s", (seconds, text) => {
  expect(formatDuration(seconds)).toBe(text);
});

test.each([
  [0.42, "0.42"],
  [31, "31"],
  [8474, "8474"],
  [38_100, "38.1k"],
  [999_600, "1M"],
  [3_400_000, "3.4M"],
  [999_999_999, "1G"],
])("%d is %s", (value, text) => {
  expect(formatCount(value)).toBe(text);
});

test.each([
  [0, "0 B"],
  [1023, "1023 B"],
  [1536, "1.5 KiB"],
  [2 ** 20 - 1, "1 MiB"],
  [536 * 2 ** 20, "536 MiB"],
  [5.63 * 2 ** 30, "5.63 GiB"],
])("%d bytes are %s", (bytes, text) => {
  expect(formatBytes(bytes)).toBe(text);
});

test("says one thing and several things", () => {
  expect([1, 2, 12_345].map((count) => formatCounted(count, "pair"))).toEqual(["1 pair", "2 pairs", "12345 pairs"]);
});
