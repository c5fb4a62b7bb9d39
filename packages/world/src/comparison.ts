import type { Task } from "./tasks.ts";
import { adjectives, comparison, nouns, verbs } from "./vocabulary.ts";

/**
 * The right answer beside the given one, token by token: "dog dog yes sun cat no - tree no". A judge that writes this out
 * first only has to answer, to copy and to compare two neighbours; without it, it must do all of that at once.
 */
export function compare(task: Task, answer: readonly string[]): string[] {
  const right = task.open === null ? task.answer : correctedSentence(task.open, answer);
  const length = Math.max(right.length, answer.length);
  return Array.from({ length }, (_, k) => {
    const [wanted, given] = [right[k] ?? comparison.none, answer[k] ?? comparison.none];
    return [wanted, given, wanted === given ? comparison.right : comparison.wrong];
  }).flat();
}

/** A right sentence with the words, which keeps of the given one what can stay where it stands. */
function correctedSentence(required: readonly string[], answer: readonly string[]): string[] {
  const described = required.filter((word) => adjectives.includes(word));
  let names = required.filter((word) => nouns.includes(word));
  const sentence: string[] = [];
  const take = (choices: readonly string[]): string => {
    const given = answer[sentence.length];
    const token = given !== undefined && choices.includes(given) ? given : (choices[0] as string);
    sentence.push(token);
    return token;
  };
  take(["the"]);
  let name = take([...names, ...described]);
  const describesSubject = described.includes(name);
  if (describesSubject) name = take(names);
  names = names.filter((other) => other !== name);
  take(verbs);
  take(["the"]);
  if (!describesSubject) take(described);
  take(names);
  take(["."]);
  return sentence;
}
