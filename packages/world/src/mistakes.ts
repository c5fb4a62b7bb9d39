import type { Random } from "./random.ts";
import { answerTokens, makeTask, type Task } from "./tasks.ts";
import { kinds } from "./vocabulary.ts";

type Mistake = (answer: string[], task: Task, random: Random) => string[];

/** What goes wrong in answers, with how often each is picked. */
const mistakes: readonly [weight: number, mistake: Mistake][] = [
  [3, drop],
  [2, duplicate],
  [3, swap],
  [4, replaceByKind],
  [1, replaceByAny],
  [1, truncate],
  [1, extend],
  [1, operandsInstead],
  [1, otherTask],
];

const totalWeight = mistakes.reduce((sum, [weight]) => sum + weight, 0);

/** The answer, never empty, with one to several mistakes; `more` is the chance of each further one. */
export function spoil(answer: readonly string[], task: Task, random: Random, more: number): string[] {
  let spoilt = [...answer];
  do spoilt = pickMistake(random)(spoilt, task, random);
  while (random.chance(more));
  return spoilt;
}

function pickMistake(random: Random): Mistake {
  let left = random.next() * totalWeight;
  for (const [weight, mistake] of mistakes) {
    left -= weight;
    if (left < 0) return mistake;
  }
  return drop;
}

function position(answer: readonly string[], random: Random): number {
  return random.between(0, answer.length - 1);
}

function drop(answer: string[], _: Task, random: Random): string[] {
  return answer.length < 2 ? answer : answer.toSpliced(position(answer, random), 1);
}

function duplicate(answer: string[], _: Task, random: Random): string[] {
  const at = position(answer, random);
  return answer.toSpliced(at, 0, answer[at] as string);
}

function swap(answer: string[], _: Task, random: Random): string[] {
  if (answer.length < 2) return answer;
  const at = random.between(0, answer.length - 2);
  return answer.toSpliced(at, 2, answer[at + 1] as string, answer[at] as string);
}

function replaceByKind(answer: string[], task: Task, random: Random): string[] {
  return answer.toSpliced(position(answer, random), 1, random.pick([...task.allowed]));
}

function replaceByAny(answer: string[], _: Task, random: Random): string[] {
  return answer.toSpliced(position(answer, random), 1, random.pick(answerTokens));
}

function truncate(answer: string[], _: Task, random: Random): string[] {
  return answer.slice(0, random.between(1, Math.max(1, answer.length - 2)));
}

function extend(answer: string[], task: Task, random: Random): string[] {
  const extra = Array.from({ length: random.between(1, 3) }, () => random.pick([...task.input, ...task.answer]));
  return [...answer, ...extra];
}

function operandsInstead(_: string[], task: Task, random: Random): string[] {
  return random.chance(0.5) ? [...task.input] : task.input.toReversed();
}

function otherTask(_: string[], __: Task, random: Random): string[] {
  return makeTask(random.pick(kinds), random).answer;
}
