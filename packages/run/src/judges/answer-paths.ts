import { TemporaError } from "@tempora/errors";
import { type AnswerPath, answersOf, type JudgeTemplate, spellings } from "@tempora/preferences";

/** The part of a tokenizer that is needed here. */
interface Encoder {
  encode(text: string): number[];
}

export interface AnswerPaths {
  /** Tokens with which every answer begins: the template's answer prefix, as it is written before each of them. */
  prefix: number[];
  /** What tells the answers apart; none is empty. */
  paths: AnswerPath[];
}

/**
 * The answers of a template as tokens of one model. The prefix is tokenized together with each answer, since a space at
 * its end may belong to the answer's first token.
 * @throws TemporaError where two answers are the same tokens, or one has none.
 */
export function answerPaths(template: JudgeTemplate, tokenizer: Encoder): AnswerPaths {
  const { prefix, answers } = answersOf(template);
  const whole: AnswerPath[] = [];
  const known = new Map<string, number>();
  answers.forEach((option, answer) => {
    for (const text of spellings(option)) {
      const ids = tokenizer.encode(prefix + text);
      const key = ids.join(",");
      const other = known.get(key);
      if (ids.length === 0) fail(template, `The answer ${JSON.stringify(text)} has no tokens`);
      if (other !== undefined && other !== answer) {
        fail(template, `Two answers are the same tokens: ${JSON.stringify(text)} is one of them`);
      }
      // Two spellings of one answer may be the same tokens, where the tokenizer puts a space before every word.
      if (other === undefined) whole.push({ answer, ids });
      known.set(key, answer);
    }
  });
  const shared = sharedLength(whole.map(({ ids }) => ids));
  return {
    prefix: whole[0]?.ids.slice(0, shared) ?? [],
    paths: whole.map(({ answer, ids }) => ({ answer, ids: ids.slice(shared) })),
  };
}

/** Tokens that all lists begin with, leaving each at least one. */
function sharedLength(lists: readonly (readonly number[])[]): number {
  const most = Math.min(...lists.map((ids) => ids.length)) - 1;
  let length = 0;
  while (length < most && lists.every((ids) => ids[length] === lists[0]?.[length])) length++;
  return length;
}

function fail(template: JudgeTemplate, what: string): never {
  throw new TemporaError(`${what} for this model's tokenizer`, {
    where: { field: `judge.template "${template.name}"` },
    remedy: "Give answers that the model's tokens tell apart.",
  });
}
