import type { Random } from "./random.ts";
import { adjectives, type Kind, letters, marks, nouns, numbers, verbs, words } from "./vocabulary.ts";

/** An instruction in tokens, and what an answer to it is checked against. */
export interface Task {
  kind: Kind;
  /** The instruction's operands, without its first word. */
  input: string[];
  /** The right answer, or one of them where `open` is set. */
  answer: string[];
  /** What an answer may consist of. */
  allowed: ReadonlySet<string>;
  /** For sentences: the words to use; any grammatical sentence with them is right. */
  open: string[] | null;
}

const wordSet = new Set(words);
const letterSet = new Set(letters);
const numberSet = new Set(numbers);
const countSet = new Set([...words, ...numbers]);
const listSet = new Set([...words, "(", ",", ")"]);
const sentenceSet = new Set([...words, ...verbs, "the", "."]);

/** A random task of one kind. */
export function makeTask(kind: Kind, random: Random): Task {
  return makers[kind](random);
}

const makers: Record<Kind, (random: Random) => Task> = {
  repeat: (random) => {
    const input = random.sample(words, random.between(4, 5));
    return task("repeat", input, input, wordSet);
  },
  reverse: (random) => {
    const input = random.sample(words, 4);
    return task("reverse", input, input.toReversed(), wordSet);
  },
  sort: (random) => {
    const byNumber = random.chance(0.5);
    const pool = byNumber ? numbers : letters;
    const input = random.sample(pool, 4);
    const answer = input.toSorted((a, b) => pool.indexOf(a) - pool.indexOf(b));
    return task("sort", input, answer, byNumber ? numberSet : letterSet);
  },
  spell: (random) => {
    const input = random.sample(words, 2);
    return task("spell", input, [...input.join("")], letterSet);
  },
  count: (random) => {
    const distinct = random.sample(words, 2);
    const input = [...distinct];
    while (input.length < 5) input.splice(random.between(1, input.length), 0, random.pick(distinct));
    const answer: string[] = [];
    for (const word of new Set(input)) answer.push(word, String(input.filter((other) => other === word).length));
    return task("count", input, answer, countSet);
  },
  add: (random) => {
    const input: string[] = [];
    const answer: string[] = [];
    const sums = 3;
    for (let i = 0; i < sums; i++) {
      const a = random.between(0, 9);
      const b = random.between(0, 9);
      if (i > 0) input.push(",");
      input.push(String(a), "+", String(b));
      answer.push(String(a + b));
    }
    return task("add", input, answer, numberSet);
  },
  last: (random) => {
    const count = random.between(2, 3);
    const list = random.sample(words, 5);
    return task("last", [String(count), ...list], list.slice(-count), wordSet);
  },
  second: (random) => {
    const input = random.sample(words, 6);
    const answer = input.filter((_, i) => i % 2 === 1);
    return task("second", input, answer, wordSet);
  },
  list: (random) => {
    const input = random.sample(words, 3);
    const answer = ["(", ...input.flatMap((word, i) => (i === 0 ? [word] : [",", word])), ")"];
    return task("list", input, answer, listSet);
  },
  sentence: (random) => {
    const [first, last] = random.sample(nouns, 2) as [string, string];
    const input = [random.pick(adjectives), first, last];
    return { ...task("sentence", input, sentence(input, random), sentenceSet), open: input };
  },
};

function task(kind: Kind, input: string[], answer: string[], allowed: ReadonlySet<string>): Task {
  return { kind, input, answer, allowed, open: null };
}

/** "the red fox sees the hen ." with the given words; their order and the verb are free. */
export function sentence(required: readonly string[], random: Random): string[] {
  const required2 = required.filter((word) => nouns.includes(word));
  const [subject, object] = random.sample(required2, 2) as [string, string];
  const adjective = required.find((word) => adjectives.includes(word));
  const describesSubject = random.chance(0.5);
  const phrase = (noun: string, described: boolean) =>
    described && adjective !== undefined ? ["the", adjective, noun] : ["the", noun];
  return [...phrase(subject, describesSubject), random.pick(verbs), ...phrase(object, !describesSubject), "."];
}

const grammar = new RegExp(
  `^the (?:(?:${adjectives.join("|")}) )?(?:${nouns.join("|")}) (?:${verbs.join("|")}) ` +
    `the (?:(?:${adjectives.join("|")}) )?(?:${nouns.join("|")}) \\.$`,
);

/** Whether the tokens form "the [adjective] noun verb the [adjective] noun ." */
export function isSentence(tokens: readonly string[]): boolean {
  return grammar.test(tokens.join(" "));
}

/** Everything an answer to some task may hold. */
export const answerTokens: readonly string[] = [...words, ...verbs, ...letters, ...numbers, ...marks];
