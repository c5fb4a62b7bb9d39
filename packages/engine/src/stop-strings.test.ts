import { expect, test } from "vitest";
import { StopStrings } from "./stop-strings.ts";

const pieces = ["a", "b", "STO", "P", "", " long piece of text ", "S"];
const decode = (ids: number[]) => ids.map((id) => pieces[id]).join("");

/** Index of the id that completes a stop string, or -1. */
function completedAt(strings: string[], ids: number[]): number {
  const stop = new StopStrings(strings, decode);
  return ids.findIndex((_, i) => stop.completedBy(ids.slice(0, i + 1)));
}

test("finds the token that completes a text across tokens", () => {
  expect(completedAt(["STOP"], [0, 1, 2, 3, 1])).toBe(3);
  expect(completedAt(["STOP", "ab"], [0, 1, 2, 3])).toBe(1);
  expect(completedAt(["STOP"], [2, 0, 3])).toBe(-1);
});

test("looks past tokens without text", () => {
  const silent = Array.from({ length: 40 }, () => 4);
  expect(completedAt(["STOP"], [5, 2, ...silent, 3])).toBe(42);
});
