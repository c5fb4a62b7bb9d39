import { TemporaError } from "@tempora/errors";

/** A judge's instruction as data: text with one {prompt} and one {response} slot. */
export interface JudgeTemplate {
  name: string;
  /** Anything else in braces is plain text. The prompt stands before the response, so that responses share it. */
  text: string;
  /** The highest total; the lowest is 0. */
  maxScore: number;
}

/**
 * The additive five-point rubric of Self-Rewarding Language Models (arXiv:2401.10020, figure 2), in our words.
 * Rubric, prompt and response come in this order, so that a prefix cache holds the first two once for all responses.
 */
export const defaultJudgeTemplate: JudgeTemplate = {
  name: "additive-five-points",
  maxScore: 5,
  text: `Review the user's question and the response to it with the additive 5-point rubric below. Start from 0 and add a point for each criterion that is met:

- Add 1 point if the response is relevant and gives some information on the user's inquiry, even if it is incomplete or contains some irrelevant content.
- Add another point if the response addresses a substantial part of the user's question, without completely resolving it or answering it directly.
- Award a third point if the response answers the basic elements of the user's question in a useful way, whoever seems to have written it.
- Grant a fourth point if the response is clearly written from an AI assistant's perspective, addresses the question directly and comprehensively, and is well organized and helpful, even if there is slight room for improvement in clarity, conciseness or focus.
- Bestow a fifth point if the response is impeccably tailored to the user's question, without extraneous information, reflects expert knowledge, and is a high-quality, engaging and insightful answer.

User: {prompt}

<response>
{response}
</response>

After examining the user's instruction and the response:

- Briefly justify your total score, in at most 100 words.
- Conclude with the score in the format: "Score: <total points>"`,
};

const slots = /\{(prompt|response)\}/g;

/** Throws a TemporaError unless the template has each slot exactly once, the prompt's first. */
export function checkJudgeTemplate(template: JudgeTemplate): void {
  const found = [...template.text.matchAll(slots)].map((match) => match[1]);
  if (found.length !== 2 || found[0] !== "prompt" || found[1] !== "response") {
    throw new TemporaError(`The judge template "${template.name}" has the slots [${found.join(", ")}]`, {
      where: { field: "judge.template" },
      remedy: "Write {prompt} once and {response} once, the prompt before the response.",
    });
  }
  if (!Number.isFinite(template.maxScore) || template.maxScore <= 0) {
    throw new TemporaError(`The judge template "${template.name}" has the highest score ${template.maxScore}`, {
      where: { field: "judge.template.maxScore" },
      remedy: "Give a number above 0; the rubric's is 5.",
    });
  }
}

/** The judge's user turn. Filled in one pass: braces and slots inside the prompt or the response stay as they are. */
export function judgePrompt(template: JudgeTemplate, prompt: string, response: string): string {
  checkJudgeTemplate(template);
  return template.text.replace(slots, (_, slot: string) => (slot === "prompt" ? prompt : response));
}
