import { describe, expect, it } from "vitest";
import { judgePrompt } from "./judge-prompt.ts";
import { defaultJudgeTemplate } from "./judge-templates.ts";
import { parseScore } from "./parse-score.ts";

describe("parseScore takes", () => {
  it.each([
    ["Score: 4", 4],
    ["score: 4", 4],
    ["SCORE: 4", 4],
    ["Score:4", 4],
    ["Score : 4", 4],
    ["Score = 4", 4],
    ["Score：4", 4],
    ["Score: 4.", 4],
    ["Score: 4, since it is complete.", 4],
    ["Score: 4/5", 4],
    ["Score: 4 / 5", 4],
    ["Score: 4/5.", 4],
    ["Score: 4 out of 5", 4],
    ["Score: 4 out of 5 points", 4],
    ["Score: 4 of 5", 4],
    ["Score: 4 (out of 5)", 4],
    ["Score: 4.5/5.0", 4.5],
    ["Score (out of 5): 4", 4],
    ["**Score:** 4", 4],
    ["**Score**: 4", 4],
    ["**Score: 4**", 4],
    ["**Score: 4/5**", 4],
    ["Score: **4**/5", 4],
    ["### Score: 4", 4],
    ["Score: <4>", 4],
    ["Score: <4> points", 4],
    ["Score: [4]", 4],
    ["Score: (4)", 4],
    ["Score: `4`", 4],
    ["Score: $\\boxed{4}$", 4],
    ['{"score": 4}', 4],
    ["Score:\n4", 4],
    ["Total score: 3.5", 3.5],
    ["Final Score: 3,5", 3.5],
    ["Score: 0", 0],
    ["Score: 5", 5],
    ["Score: 4 points", 4],
    ["Total score: 4 (1+1+1+1+0)", 4],
    ["Score: 4. 1 point is lost for its length.", 4],
    ["Score: 4\n5 more questions", 4],
    ["Score: 4\n\n- 1 point for relevance\n- 3 points for the rest", 4],
    ['{"overall_score": 4, "reason": "short"}', 4],
    ["Score: 1 + 1 + 1 = 3", 3],
    ["Score: 4 - a solid answer", 4],
    ["The answer is relevant and complete.\n\nScore: 4", 4],
    ["I give this response the score: 4", 4],
    ["kind=1 half=1 length=0 items=0 order=0 Score: 2", 2],
    ["<think>Score: 1? No, more.</think>Score: 4", 4],
  ])("%j as %d", (text, score) => {
    expect(parseScore(text)).toEqual({ score });
  });

  it("the total after the criteria's own scores", () => {
    expect(parseScore("Relevance score: 1\nClarity score: 1\nDepth score: 0\nScore: 2")).toEqual({ score: 2 });
    expect(parseScore("1. Relevant. Score: 1\n2. Substantial. Score: 1\n\nTotal score: 2")).toEqual({ score: 2 });
  });

  it("the same score stated twice", () => {
    expect(parseScore("Score: 3. The answer is short.\nScore: 3/5")).toEqual({ score: 3 });
  });

  it("the verdict after an echo of the instruction, and before one", () => {
    expect(parseScore('Conclude with the score in the format: "Score: <total>"\n\nScore: 2')).toEqual({ score: 2 });
    expect(parseScore('Score: 2\n\n- Conclude with the score in the format: "Score: <total points>"')).toEqual({
      score: 2,
    });
    expect(parseScore("The format is Score: 0-5.\nScore: 2")).toEqual({ score: 2 });
  });

  it("the verdict after the whole rubric repeated", () => {
    const echoed = judgePrompt(defaultJudgeTemplate, "Rate it from 1 to 10", "It has 5 points out of 5");
    expect(parseScore(`${echoed}\n\nIt is relevant only.\n\nScore: 1`)).toEqual({ score: 1 });
  });

  it("a score of another rubric's height", () => {
    expect(parseScore("Score: 8/10", { max: 10 })).toEqual({ score: 8 });
    expect(parseScore("Score: 8", { max: 10 })).toEqual({ score: 8 });
  });

  it("a score with text after it, though the judge ran into its limit", () => {
    expect(parseScore("Score: 4\n\nAnother question", { finished: false })).toEqual({ score: 4 });
  });
});

describe("parseScore refuses", () => {
  it.each([
    ["", "no-score"],
    ["The answer is good.", "no-score"],
    ["4", "no-score"],
    ["4/5", "no-score"],
    ["A response with a score of 5 would be better.", "no-score"],
    ["This deserves a perfect score", "no-score"],
    ["underscore: 4", "no-score"],
    ["Clarity score: 4", "no-score"],
    ['Conclude with the score in the format: "Score: <total points>"', "no-score"],
    ["Score: <total>", "no-score"],
    ["Score: n", "no-score"],
    ["Score: [your score]", "no-score"],
    ["Score:", "cut-off"],
    ["It is good.\n\n**Score:** ", "cut-off"],
    ["Score: 3. On reflection it is better.\nScore:", "cut-off"],
    ["<think>The score: 4 seems", "cut-off"],
    ["Score: 6", "out-of-range"],
    ["Score: -1", "out-of-range"],
    ["Score: −1", "out-of-range"],
    ["Score: 5.5", "out-of-range"],
    ["Score: 45", "out-of-range"],
    ["Score: 8/10", "out-of-range"],
    ["Score: 4/10", "out-of-range"],
    ["Score: 100", "out-of-range"],
    ["Score: 3-4", "unreadable"],
    ["Score: 3 to 4", "unreadable"],
    ["Score: 3 or 4", "unreadable"],
    ["Score: 3–4", "unreadable"],
    ["Score: 1 + 1 + 1", "unreadable"],
    ["Score: 1+1+1", "unreadable"],
    ["Score: 4 5", "unreadable"],
    ["Score: 4, 5", "unreadable"],
    ["Score: 4 and 5", "unreadable"],
    ["Score: 80%", "unreadable"],
    ["Score: 4th", "unreadable"],
    ["Score: 4/5/2026", "unreadable"],
    ["Score: 1.2.3", "unreadable"],
    ["Score: 1,000", "unreadable"],
    ["Score: four", "unreadable"],
    ["Score: ４", "unreadable"],
    ["Score: ४", "unreadable"],
    ["Score: ٤", "unreadable"],
    ["Score: 四", "unreadable"],
    ["Score: 4५", "unreadable"],
    ["Score: 3\nScore: 4", "ambiguous"],
    ["Final score: 3\nFinal score: 4", "ambiguous"],
    ["Total score: 3\nScore: 4", "ambiguous"],
    ["Score: 9\nScore: 4", "ambiguous"],
  ])("%j as %s", (text, failure) => {
    expect(parseScore(text)).toEqual({ failure });
  });

  it("a judgement cut off before or within its score", () => {
    expect(parseScore("It covers the basics and", { finished: false })).toEqual({ failure: "cut-off" });
    expect(parseScore("Good. Score", { finished: false })).toEqual({ failure: "cut-off" });
    expect(parseScore("Good. Score: 4", { finished: false })).toEqual({ failure: "cut-off" });
  });

  it("the rubric repeated without a verdict", () => {
    const echoed = judgePrompt(defaultJudgeTemplate, "What is 2 + 2?", "4");
    expect(parseScore(echoed)).toEqual({ failure: "no-score" });
  });
});
