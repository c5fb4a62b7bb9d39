import { expect, test } from "vitest";
import { alpacaEvalFile, arenaHardFile, markdownCounts } from "./answer-files.ts";

const answers = [
  { uid: "7", instruction: "Why?", output: "# Because\n\n1. it **is**\n2. so\n", tokens: 9 },
  { uid: "8", instruction: "And?", output: "No.", tokens: 2 },
];

test("AlpacaEval's file is a list of instruction, output and generator", () => {
  expect(JSON.parse(alpacaEvalFile(answers, "M2"))).toEqual([
    { instruction: "Why?", output: answers[0]!.output, generator: "M2" },
    { instruction: "And?", output: "No.", generator: "M2" },
  ]);
});

test("Arena-Hard's file is a row an answer, with what its style control counts", () => {
  const rows = arenaHardFile(answers, "M2", 1_700_000_000)
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line));
  expect(rows).toHaveLength(2);
  expect(rows[0]).toEqual({
    uid: "7",
    ans_id: expect.stringMatching(/^[0-9a-f]{22}$/),
    model: "M2",
    messages: [
      { role: "user", content: "Why?" },
      { role: "assistant", content: { answer: answers[0]!.output } },
    ],
    tstamp: 1_700_000_000,
    metadata: {
      token_len: 9,
      header_count: { h1: 1, h2: 0, h3: 0, h4: 0, h5: 0, h6: 0 },
      list_count: { ordered: 2, unordered: 0 },
      bold_count: { "**": 1, __: 0 },
    },
  });
});

test("nothing is counted inside of fenced code", () => {
  expect(markdownCounts("- a\n```\n# not a header\n- nor a list\n```\n* b").list_count).toEqual({
    ordered: 0,
    unordered: 2,
  });
});
