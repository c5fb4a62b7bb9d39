import { TemporaError } from "@tempora/errors";

/** An answer that the judge may give, and what it is worth. */
export interface JudgeAnswer {
  /** Its text, or all spellings that count as this answer: ["Yes", " yes"]. */
  text: string | readonly string[];
  value: number;
}

/** A judge's instruction as data: text with one {prompt} and one {response} slot. */
export interface JudgeTemplate {
  name: string;
  /** Anything else in braces is plain text. The prompt stands before the response, so that responses share it. */
  text: string;
  /** The highest total; the lowest is 0. */
  maxScore: number;
  /** What the judge's turn begins with before its answer, as "Score: ". Read by a judge of kind "expected" only. */
  answerPrefix?: string | undefined;
  /** The answers among which a judge of kind "expected" weighs. Without them: the whole scores from 0 to maxScore. */
  answers?: readonly JudgeAnswer[] | undefined;
}

const slots = /\{(prompt|response)\}/g;

/** Throws a TemporaError unless the template has each slot exactly once, the prompt's first, and answers in its range. */
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
  if (template.answers !== undefined) checkAnswers(template, template.answers);
}

function checkAnswers(template: JudgeTemplate, answers: readonly JudgeAnswer[]): void {
  const fail = (what: string, remedy: string): never => {
    throw new TemporaError(`The judge template "${template.name}" ${what}`, {
      where: { field: "judge.template.answers" },
      remedy,
    });
  };
  const texts = answers.flatMap(spellings);
  if (answers.length < 2 || new Set(answers.map(({ value }) => value)).size < 2) {
    fail("has fewer than two different answers", "Give at least two, as yes with value 1 and no with value 0.");
  }
  if (texts.some((text) => text === "") || answers.some((answer) => spellings(answer).length === 0)) {
    fail("has an answer without text", "Write what the judge would say.");
  }
  const twice = texts.find((text, index) => texts.indexOf(text) !== index);
  if (twice !== undefined) fail(`has the answer ${JSON.stringify(twice)} twice`, "Give every spelling once.");
  const outside = answers.find(({ value }) => !(value >= 0 && value <= template.maxScore));
  if (outside !== undefined) {
    fail(
      `gives an answer the value ${outside.value}`,
      `Give values from 0 to maxScore, which is ${template.maxScore}.`,
    );
  }
}

/** The texts that count as an answer. */
export function spellings(answer: JudgeAnswer): readonly string[] {
  return typeof answer.text === "string" ? [answer.text] : answer.text;
}

/** The answers that a judge of kind "expected" weighs, and what its turn begins with. */
export function answersOf(template: JudgeTemplate): { prefix: string; answers: readonly JudgeAnswer[] } {
  if (template.answers !== undefined) return { prefix: template.answerPrefix ?? "", answers: template.answers };
  const scores = Array.from({ length: Math.floor(template.maxScore) + 1 }, (_, value) => ({ text: `${value}`, value }));
  return { prefix: template.answerPrefix ?? "Score: ", answers: scores };
}

/** A piece of the judge's prompt: the template's, or text that may try to speak for it. */
export type JudgePromptPart = string | { untrusted: string };

/**
 * The judge's user turn in parts. Filled in one pass: braces and slots inside the prompt or the response stay as they are.
 * A tag of the template that stands in them, as `</response>`, loses its bracket, and a line like one next to a slot, as
 * `### Response`, gets a backslash: an answer cannot end its own quotation and speak to the judge. Untrusted parts are to
 * be encoded so that they hold no special tokens.
 */
export function judgePromptParts(template: JudgeTemplate, prompt: string, response: string): JudgePromptPart[] {
  checkJudgeTemplate(template);
  const quoted = quoter(template.text);
  return template.text.split(slots).flatMap((piece, i): JudgePromptPart[] => {
    if (i % 2 === 1) return [{ untrusted: quoted(piece === "prompt" ? prompt : response) }];
    return piece === "" ? [] : [piece];
  });
}

/** The same as one text. */
export function judgePrompt(template: JudgeTemplate, prompt: string, response: string): string {
  const parts = judgePromptParts(template, prompt, response);
  return parts.map((part) => (typeof part === "string" ? part : part.untrusted)).join("");
}

function quoter(templateText: string): (text: string) => string {
  const tags = tagsOf(templateText);
  const lines = linesOf(templateText);
  return (text) => {
    const untagged = tags === null ? text : text.replace(tags, (tag) => `&lt;${tag.slice(1)}`);
    return lines === null ? untagged : untagged.replace(lines, "$1\\");
  };
}

/** Matches the names of the template's tags, opened or closed, in any case and with spaces inside; null without any. */
function tagsOf(text: string): RegExp | null {
  const names = new Set([...text.matchAll(/<\/?([\p{L}][\p{L}\p{N}_-]*)>/gu)].map((match) => match[1] as string));
  return names.size === 0 ? null : new RegExp(`<(?=\\s*/?\\s*(?:${[...names].join("|")})(?![\\p{L}\\p{N}_-]))`, "giu");
}

/** Matches the beginning of lines like those nearest to a slot that has a line of its own; null without any. */
function linesOf(text: string): RegExp | null {
  const lines = text.split("\n").map((line) => line.trim());
  const near = (from: number, step: number) => {
    let at = from + step;
    while (lines[at] === "") at += step;
    return lines[at] ?? "";
  };
  const found = lines
    .flatMap((line, i) => (/^\{(?:prompt|response)\}$/.test(line) ? [near(i, -1), near(i, 1)] : []))
    .filter((line) => line !== "" && !/[<{]/.test(line));
  const literal = (line: string) => line.replace(/[.*+?^${}()|[\]\\/]/g, "\\$&");
  if (found.length === 0) return null;
  return new RegExp(`^([ \\t]*)(?=(?:${found.map(literal).join("|")})[ \\t]*$)`, "gimu");
}
