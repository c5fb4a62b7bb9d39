import { expect, test } from "vitest";
import { bytesText, countText } from "./numbers.ts";

test.each([
  [0, "0"],
  [999, "999"],
  [1000, "1.00k"],
  [38_149, "38.1k"],
  [999_400, "999k"],
  [999_600, "1.00M"],
  [2_840_000, "2.84M"],
  [780e9, "780G"],
  [1.3e18, "1.30E"],
])("%d is %s", (value, text) => {
  expect(countText(value)).toBe(text);
});

test("sizes have their unit apart", () => {
  expect([512, 197_000_000, 1_204_000_000].map(bytesText)).toEqual(["512 B", "197 MB", "1.20 GB"]);
});
