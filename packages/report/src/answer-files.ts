import { createHash } from "node:crypto";

/** An answer as evaluations of other people want it. */
export interface Answer {
  /** Identity of the prompt, where the file has one (question_id, uid). */
  uid: string;
  /** What the user asked. */
  instruction: string;
  output: string;
  /** Tokens of the answer. */
  tokens: number;
}

/** AlpacaEval's model outputs: a JSON list of {instruction, output, generator}. */
export function alpacaEvalFile(answers: readonly Answer[], generator: string): string {
  return `${JSON.stringify(
    answers.map(({ instruction, output }) => ({ instruction, output, generator })),
    null,
    2,
  )}\n`;
}

/**
 * Arena-Hard's model answers (arena-hard-auto, version 2), JSONL.
 * @param seconds Time stamp, in seconds since 1970.
 */
export function arenaHardFile(answers: readonly Answer[], model: string, seconds: number): string {
  return answers
    .map(({ uid, instruction, output, tokens }) => {
      const row = {
        uid,
        ans_id: createHash("sha256")
          .update(JSON.stringify([uid, model, output]))
          .digest("hex")
          .slice(0, 22),
        model,
        messages: [
          { role: "user", content: instruction },
          { role: "assistant", content: { answer: output } },
        ],
        tstamp: seconds,
        metadata: { token_len: tokens, ...markdownCounts(output) },
      };
      return `${JSON.stringify(row)}\n`;
    })
    .join("");
}

/** What Arena-Hard's style control counts, outside of fenced code (arena-hard-auto: count_markdown_elements). */
export function markdownCounts(answer: string) {
  const text = answer.replace(/```[^`]*```/g, "");
  const count = (pattern: RegExp) => text.match(pattern)?.length ?? 0;
  const headers = [1, 2, 3, 4, 5, 6].map((level) => [`h${level}`, count(new RegExp(`^#{${level}}\\s`, "gm"))]);
  return {
    header_count: Object.fromEntries(headers) as Record<string, number>,
    list_count: { ordered: count(/^\s*\d+\.\s/gm), unordered: count(/^\s*[-*+]\s/gm) },
    bold_count: { "**": count(/\*\*[^*\n]+\*\*/g), __: count(/__[^_\n]+__/g) },
  };
}
