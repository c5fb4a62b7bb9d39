import { failure } from "@tempora/testing";
import { expect, it } from "vitest";
import { CalibrationRows, knownPairs } from "./calibration.ts";

const row = (value: Record<string, unknown>) => knownPairs({ row: 1, value }, "known.jsonl");
const pairs = [
  ...row({ prompt: "p", better: "p+", worse: "p-", chat_template_kwargs: { thinks: true } }),
  ...row({ prompt: "q", better: "q+", worse: "q-" }),
  ...row({ prompt: "r", better: "r+", worse: "r-" }),
];

/** The calibration where an answer to a prompt scores what the table has under "prompt answer". */
function measured(scores: Record<string, number | null>, list = pairs) {
  const rows = new CalibrationRows(list);
  return rows.measure(rows.responses.map(({ promptText, text }) => scores[`${promptText} ${text}`] ?? null));
}

it("asks about both answers, and about those to the next prompt as answers to this one", () => {
  const { responses } = new CalibrationRows(pairs);
  expect(responses.map(({ promptText, text }) => `${promptText} ${text}`)).toEqual([
    "p p+",
    "p p-",
    "p q+",
    "p q-",
    "q q+",
    "q q-",
    "q r+",
    "q r-",
    "r r+",
    "r r-",
    "r p+",
    "r p-",
  ]);
  expect(responses.map(({ variables }) => variables?.thinks)).toEqual([true, true, true, true, ...Array(8)]);
});

it("measures the better above the worse, and each above the other prompt's of its kind; a tie counts half", () => {
  const { ranked, betterAboveOther, worseAboveOther, rows, unscored } = measured({
    ...{ "p p+": 3, "p p-": 2, "p q+": 1, "p q-": 4 },
    ...{ "q q+": 3, "q q-": 3, "q r+": 4, "q r-": 1 },
    ...{ "r r+": 1, "r r-": 2, "r p+": 0, "r p-": 3 },
  });
  expect([rows, unscored]).toEqual([3, 0]);
  expect([ranked.wins, ranked.ties, ranked.losses, ranked.rate]).toEqual([1, 1, 1, 0.5]);
  expect([betterAboveOther.wins, betterAboveOther.losses]).toEqual([2, 1]);
  expect([worseAboveOther.wins, worseAboveOther.losses]).toEqual([1, 2]);
});

it("leaves rows out where one of the two has no score, and counts the answers without one", () => {
  const { ranked, betterAboveOther, unscored } = measured({ "p p+": 3, "p p-": 2, "q q+": 1, "q r+": 2, "r r+": 1 });
  expect(ranked).toMatchObject({ count: 1, wins: 1 });
  expect(betterAboveOther).toMatchObject({ count: 1, losses: 1 });
  expect(unscored).toBe(7);
});

it("takes every two completions of different scores, and passes by rows of the same prompt", () => {
  const completions = [
    { text: "a", score: 1 },
    { text: "b", score: 3 },
    { text: "c", score: 1 },
  ];
  const known = row({ prompt: "p", completions });
  expect(known.map(({ better, worse }) => [better, worse])).toEqual([
    ["b", "a"],
    ["b", "c"],
  ]);
  const other = row({ prompt: "q", better: "d", worse: "e" });
  const asked = new CalibrationRows([...known, ...other]).responses.map(
    ({ promptText, text }) => `${promptText} ${text}`,
  );
  expect(asked).toEqual(["p b", "p a", "p d", "p e", "p c", "q d", "q e", "q b", "q a"]);
});

it("refuses rows of one prompt alone, and rows whose order nobody knows", async () => {
  expect((await failure(() => new CalibrationRows(row({ prompt: "p", better: "a", worse: "b" })))).what).toBe(
    "All rows have the same prompt",
  );
  for (const value of [{ better: "a" }, { completions: [{ text: "a" }] }, {}]) {
    const error = await failure(() => row({ prompt: "p", ...value }));
    expect(error.what).toBe("The order of the row's answers is not known");
    expect(error.where).toEqual({ file: "known.jsonl", row: 1 });
  }
});
