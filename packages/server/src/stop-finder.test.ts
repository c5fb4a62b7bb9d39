import { describe, expect, test } from "vitest";
import { StopFinder } from "./stop-finder.ts";

/** What comes out of a text in these pieces, and where it stopped. */
function run(strings: string[], pieces: string[]): { given: string[]; stopped: number; end: string } {
  const finder = new StopFinder(strings);
  const given: string[] = [];
  for (const [i, piece] of pieces.entries()) {
    const { text, stopped } = finder.push(piece);
    given.push(text);
    if (stopped) return { given, stopped: i, end: finder.end() };
  }
  return { given, stopped: -1, end: finder.end() };
}

describe("a stop string", () => {
  test("is not given out, nor what follows it", () => {
    expect(run(["END"], ["one END two"])).toEqual({ given: ["one "], stopped: 0, end: "" });
  });

  test("is found over several pieces; what may become one is held back", () => {
    expect(run(["END"], ["one E", "N", "D"])).toEqual({ given: ["one ", "", ""], stopped: 2, end: "" });
    expect(run(["END"], ["one E", "N", "O"])).toEqual({ given: ["one ", "", "ENO"], stopped: -1, end: "" });
    expect(run(["END"], ["one EN"])).toEqual({ given: ["one "], stopped: -1, end: "EN" });
  });

  test("may begin within what looked like another", () => {
    expect(run(["aab"], ["aa", "ab"])).toEqual({ given: ["", "a"], stopped: 1, end: "" });
  });

  test("that comes first ends the text, whichever it is", () => {
    expect(run(["two", "one"], ["zero one two"])).toEqual({ given: ["zero "], stopped: 0, end: "" });
    expect(run(["xyz", "y"], ["xy"])).toEqual({ given: ["x"], stopped: 0, end: "" });
  });

  test("need not be there", () => {
    expect(run([], ["all", " of it"])).toEqual({ given: ["all", " of it"], stopped: -1, end: "" });
  });
});
