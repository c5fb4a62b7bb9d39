import { expect, test } from "vitest";
import { countText } from "./numbers.ts";

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
