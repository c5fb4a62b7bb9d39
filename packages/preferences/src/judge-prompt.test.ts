import { describe, expect, it } from "vitest";
import { defaultJudgeTemplate, judgePrompt } from "./judge-prompt.ts";

describe("judgePrompt", () => {
  it("puts the prompt and the response into the rubric, in this order", () => {
    const text = judgePrompt(defaultJudgeTemplate, "THE-PROMPT", "THE-RESPONSE");
    expect(text).toContain("User: THE-PROMPT\n");
    expect(text).toContain("<response>\nTHE-RESPONSE\n</response>");
    expect(text.endsWith('Conclude with the score in the format: "Score: <total points>"')).toBe(true);
  });

  it("leaves slots, braces and dollar signs of the content as they are", () => {
    const template = { name: "t", text: "{prompt}|{response}", maxScore: 5 };
    const nasty = "{response} {prompt} {{x}} $& $1 $` {0}";
    expect(judgePrompt(template, nasty, nasty)).toBe(`${nasty}|${nasty}`);
  });

  it("leaves other braces of the template alone", () => {
    const template = { name: "t", text: '{"p": "{prompt}", "r": "{response}"} {other}', maxScore: 5 };
    expect(judgePrompt(template, "a", "b")).toBe('{"p": "a", "r": "b"} {other}');
  });

  it.each(["{prompt}", "{response}", "{response} {prompt}", "{prompt} {prompt} {response}", ""])(
    "refuses the template %j",
    (text) => {
      expect(() => judgePrompt({ name: "mine", text, maxScore: 5 }, "a", "b")).toThrow(
        /judge template "mine".*\{prompt\} once and \{response\} once/,
      );
    },
  );

  it("refuses a highest score that is no positive number", () => {
    expect(() => judgePrompt({ ...defaultJudgeTemplate, maxScore: 0 }, "a", "b")).toThrow(/highest score 0/);
  });
});
