const list = (text: string): readonly string[] => text.trim().split(/\s+/);

/** Words of three or four letters, each one token. */
export const nouns = list(`
  ant bag bat bear bed bell bird boat book box bus cake car cat coat corn cow cup deer dog
  door egg fan fish fox frog hat hen key king lamp leaf lion milk moon nest owl rain sun tree`);

export const adjectives = list("big blue cold dark fast gold long old pink red soft tall");

export const verbs = list("finds gets has likes sees takes wants hears");

export const letters = list("a b c d e f g h i j k l m n o p q r s t u v w x y z");

/** 0 to 20. */
export const numbers: readonly string[] = Array.from({ length: 21 }, (_, number) => String(number));

export const words: readonly string[] = [...nouns, ...adjectives];

/** What an answer needs beside words, letters and numbers. */
export const marks = list("the . ( , )");

/** The kinds of task, each named by the first word of its instruction. */
export const kinds = [
  "repeat",
  "reverse",
  "sort",
  "spell",
  "count",
  "add",
  "last",
  "second",
  "list",
  "sentence",
] as const;

export type Kind = (typeof kinds)[number];

/** The rubric's points, in the order in which they are added up. */
export const points = ["kind", "half", "length", "items", "order"] as const;

export type Point = (typeof points)[number];

/** One token of a judgement: "half=1". */
export function pointToken(point: Point, met: boolean): string {
  return `${point}=${met ? 1 : 0}`;
}

export const rubricToken = "judge";
export const responseToken = "answer";
export const scoreToken = "Score:";

/** Tokens of a comparison: whether two neighbours agree, and what stands where one answer has ended. */
export const comparison = { right: "yes", wrong: "no", none: "-" } as const;

export const special = {
  pad: "<pad>",
  unknown: "<unk>",
  end: "<end>",
  user: "<user>",
  assistant: "<assistant>",
} as const;

/** Every token by its id. */
export const vocabulary: readonly string[] = [
  ...Object.values(special),
  ...kinds,
  ...words,
  ...verbs,
  ...letters,
  ...numbers,
  ...marks,
  "+",
  rubricToken,
  responseToken,
  scoreToken,
  ...Object.values(comparison),
  ...points.flatMap((point) => [pointToken(point, true), pointToken(point, false)]),
];
