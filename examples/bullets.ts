import type { JudgeBatch } from "@tempora/run";

/**
 * A judge that a program can be: does the answer have exactly as many bullet points as the row asks for? 0 to 5, less for
 * each one too many or missing; numbers are no bullets. `points` is a column of the prompts' file; rows without it want three.
 */
export function bulletPoints({ answers, points = [] }: JudgeBatch): number[] {
  return answers.map((answer, row) => {
    const wanted = Number(points[row] ?? 3);
    const found = answer.split("\n").filter((line) => /^\s*[-*•]\s+\S/.test(line)).length;
    return found === 0 ? 0 : Math.max(0, 5 - 2 * Math.abs(found - wanted));
  });
}
