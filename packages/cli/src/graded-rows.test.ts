import type { Judge, JudgementColumns, Response } from "@tempora/run";
import { expect, it } from "vitest";
import { gradedRows } from "./graded-rows.ts";

const said = (text: string, score: number | null): JudgementColumns => ({
  ...{ sample: 0, attempt: 0, text, score, failure: score === null ? "no-score" : null },
});

it("teaches of each response the judgement that is nearest to the mean, and leaves out what has no score", () => {
  const judge = { question: ({ text }: Response) => ["Grade: ", { untrusted: text }] } as Judge;
  const responses = ["a", "b"].map((text) => ({ text }) as Response);
  const judgements = [
    [said("low", 1), said("unsaid", null), said("middle", 3), said("high", 5)],
    [said("nothing", null)],
  ];
  expect(gradedRows(judge, responses, judgements, [3.2, null])).toEqual([
    {
      prompt: [{ role: "user", content: "Grade: a" }],
      prompt_parts: [
        { text: "Grade: ", untrusted: false },
        { text: "a", untrusted: true },
      ],
      completion: [{ role: "assistant", content: "middle" }],
      score: 3,
    },
  ]);
});
