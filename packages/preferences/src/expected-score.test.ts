import { describe, expect, it } from "vitest";
import { expectedScore } from "./expected-score.ts";

const yesOrNo = [
  { text: ["Yes", " yes"], value: 1 },
  { text: "No", value: 0 },
];

describe("expectedScore", () => {
  it("is p(yes) over p(yes) and p(no), all spellings of an answer together", () => {
    const paths = [
      { answer: 0, ids: [1] },
      { answer: 0, ids: [2] },
      { answer: 1, ids: [3] },
    ];
    const result = expectedScore(yesOrNo, paths, [0.2, 0.1, 0.1].map(Math.log));
    expect(result?.score).toBeCloseTo(0.75, 12);
    expect(result?.mass).toBeCloseTo(0.4, 12);
    expect(result?.probabilities[1]).toBeCloseTo(0.25, 12);
  });

  it("is the mean of the scores under their probabilities", () => {
    const scores = [0, 1, 2].map((value) => ({ text: `${value}`, value }));
    const paths = scores.map((_, answer) => ({ answer, ids: [answer] }));
    expect(expectedScore(scores, paths, [0.1, 0.2, 0.1].map(Math.log))?.score).toBeCloseTo(1, 12);
  });

  it("takes what 10 has out of what 1 has, where both begin with one token", () => {
    const scores = [1, 10, 100].map((value) => ({ text: `${value}`, value }));
    const paths = [[7], [7, 8], [7, 8, 8]].map((ids, answer) => ({ answer, ids }));
    const result = expectedScore(scores, paths, [0.6, 0.3, 0.1].map(Math.log));
    [0.5, 1 / 3, 1 / 6].forEach((p, k) => void expect(result?.probabilities[k]).toBeCloseTo(p, 12));
    expect(result?.mass).toBeCloseTo(0.6, 12);
  });

  it("has nothing to say where no answer has any probability", () => {
    const paths = [
      { answer: 0, ids: [1] },
      { answer: 1, ids: [2] },
    ];
    expect(expectedScore(yesOrNo, paths, [Number.NEGATIVE_INFINITY, Number.NEGATIVE_INFINITY])).toBeNull();
  });
});
