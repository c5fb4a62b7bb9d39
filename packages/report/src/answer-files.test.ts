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

test("an answer's identity is of prompt, model and text", () => {
  const ids = (model: string, ...list: typeof answers) =>
    arenaHardFile(list, model, 0)
      .trimEnd()
      .split("\n")
      .map((line) => JSON.parse(line).ans_id);
  const [first] = answers as [(typeof answers)[number]];
  const all = [...ids("M2", first, { ...first, uid: "9" }, { ...first, output: "Else." }), ...ids("M1", first)];
  expect(new Set(all).size).toBe(4);
  expect(ids("M2", first)).toEqual(all.slice(0, 1));
});

test("style is counted as Arena-Hard does it", () => {
  const text = "# a\n## b\n#c\n  1. one\n2. two\n 3.no\n+ x\n  - y\n* z\n-no\n**b** ** b** __u__\n__a_b__ **c\nd**\n";
  expect(markdownCounts(text)).toEqual({
    header_count: { h1: 1, h2: 1, h3: 0, h4: 0, h5: 0, h6: 0 },
    list_count: { ordered: 2, unordered: 3 },
    bold_count: { "**": 2, __: 1 },
  });
});

test("nothing is counted inside of fenced code", () => {
  expect(markdownCounts("- a\n```\n# not a header\n- nor a list\n```\n* b").list_count).toEqual({
    ordered: 0,
    unordered: 2,
  });
});
