import { compare } from "./comparison.ts";
import { isSentence, type Task } from "./tasks.ts";
import { type Point, points, pointToken, scoreToken } from "./vocabulary.ts";

export type Grade = Record<Point, boolean>;

/**
 * The additive rubric, a point each:
 * kind: not empty, and nothing in it that such an answer cannot hold;
 * half: at least half of what is asked for is there;
 * length: as long as it should be;
 * items: exactly the right items, in any order;
 * order: exactly right.
 * For a sentence: half = half of the words to use; length = one full stop, at the end, and six to eight tokens;
 * items = each word to use once; order = all this and the grammar holds.
 */
export function grade(task: Task, answer: readonly string[]): Grade {
  const kind = answer.length > 0 && answer.every((token) => task.allowed.has(token));
  if (task.open !== null) return gradeSentence(kind, task.open, answer);
  const common = overlap(task.answer, answer);
  const length = answer.length === task.answer.length;
  return {
    kind,
    half: 2 * common >= task.answer.length,
    length,
    items: length && common === task.answer.length,
    order: length && task.answer.every((token, i) => token === answer[i]),
  };
}

function gradeSentence(kind: boolean, required: readonly string[], answer: readonly string[]): Grade {
  const used = required.filter((word) => answer.includes(word)).length;
  const expectedLength = 4 + required.length;
  const length = answer.length === expectedLength && answer.indexOf(".") === answer.length - 1;
  const items = required.every((word) => answer.filter((token) => token === word).length === 1);
  return { kind, half: 2 * used >= required.length, length, items, order: length && items && isSentence(answer) };
}

/** How many tokens two lists share, each counted as often as it stands in both. */
function overlap(a: readonly string[], b: readonly string[]): number {
  const left = new Map<string, number>();
  for (const token of a) left.set(token, (left.get(token) ?? 0) + 1);
  let common = 0;
  for (const token of b) {
    const count = left.get(token) ?? 0;
    if (count === 0) continue;
    left.set(token, count - 1);
    common++;
  }
  return common;
}

/** 0..5: the number of points met. */
export function total(grade: Grade): number {
  return points.filter((point) => grade[point]).length;
}

/** A judgement in full: the comparison, the points, their sum. "a a yes c b no kind=1 half=1 length=1 items=0 order=0 Score: 3" */
export function judgement(task: Task, answer: readonly string[]): string {
  const grades = grade(task, answer);
  const marks = points.map((point) => pointToken(point, grades[point]));
  return [...compare(task, answer), ...marks, scoreToken, String(total(grades))].join(" ");
}
