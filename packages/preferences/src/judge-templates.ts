import type { JudgeTemplate } from "./judge-prompt.ts";

const rubric = `- Add 1 point if the response is relevant and gives some information on the user's inquiry, even if it is incomplete or contains some irrelevant content.
- Add another point if the response addresses a substantial part of the user's question, without completely resolving it or answering it directly.
- Award a third point if the response answers the basic elements of the user's question in a useful way, whoever seems to have written it.
- Grant a fourth point if the response is clearly written from an AI assistant's perspective, addresses the question directly and comprehensively, and is well organized and helpful, even if there is slight room for improvement in clarity, conciseness or focus.
- Bestow a fifth point if the response is impeccably tailored to the user's question, without extraneous information, reflects expert knowledge, and is a high-quality, engaging and insightful answer.`;

const quoted = `User: {prompt}

<response>
{response}
</response>`;

/**
 * The additive five-point rubric of Self-Rewarding Language Models (arXiv:2401.10020, figure 2), in our words.
 * Rubric, prompt and response come in this order, so that a prefix cache holds the first two once for all responses.
 */
export const defaultJudgeTemplate: JudgeTemplate = {
  name: "additive-five-points",
  maxScore: 5,
  text: `Review the user's question and the response to it with the additive 5-point rubric below. Start from 0 and add a point for each criterion that is met:

${rubric}

${quoted}

After examining the user's instruction and the response:

- Briefly justify your total score, in at most 100 words.
- Conclude with the score in the format: "Score: <total points>"`,
};

const scoreOnly: JudgeTemplate = {
  name: "five-point-score",
  maxScore: 5,
  text: `Review the user's question and the response to it with the additive 5-point rubric below. Start from 0 and add a point for each criterion that is met:

${rubric}

${quoted}

Give the total score and nothing else, in the format: "Score: <total points>"`,
  answerPrefix: "Score: ",
};

/** Spellings with which models begin the answers to a yes-or-no question. */
const yesOrNo = [
  { text: ["Yes", " Yes", "yes", " yes", "YES"], value: 1 },
  { text: ["No", " No", "no", " no", "NO"], value: 0 },
];

/**
 * What a judge of kind "expected" is asked where nothing else is named: p(yes). Of some forty wordings it ranked answers of
 * known order best by a model of 135M parameters (bench/RESULTS.md); `tempora judge --calibrate` measures others.
 */
export const yesNoTemplate: JudgeTemplate = {
  name: "yes-no",
  maxScore: 1,
  text: `${quoted}

Is the response helpful?`,
  answers: yesOrNo,
};

/** The same question in other words, for a second opinion of a judge that always says the same. */
export const secondYesNoTemplate: JudgeTemplate = {
  name: "yes-no-second",
  maxScore: 1,
  text: `${quoted}

Does the response follow the instruction?`,
  answers: yesOrNo,
};

/** The judge's templates that can be named. */
export const judgeTemplates: readonly JudgeTemplate[] = [
  defaultJudgeTemplate,
  scoreOnly,
  yesNoTemplate,
  secondYesNoTemplate,
];
