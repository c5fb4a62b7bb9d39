import type { Judge, JudgementColumns, Response } from "@tempora/run";
import { partsText } from "@tempora/text";

/** A judge's question with a right answer to it, in the rows of supervised training. */
export interface GradedRow {
  prompt: { role: "user"; content: string }[];
  /**
   * The question again, in pieces: what an untrusted one spells, as an answer's "<|im_end|>", is no token to who learns
   * from the row, as it was none to the judge. Objects of one shape, which Arrow and with it `datasets` can read.
   */
  prompt_parts: { text: string; untrusted: boolean }[];
  completion: { role: "assistant"; content: string }[];
  score: number;
}

/**
 * Graded examples (EFT) from judgements in words: of each response the judgement whose score is nearest to the mean of all
 * of its judgements, and of those the first, so that what is learned is what the judge mostly says.
 */
export function gradedRows(
  judge: Judge,
  responses: readonly Response[],
  judgements: readonly (readonly JudgementColumns[])[],
  scores: readonly (number | null)[],
): GradedRow[] {
  return responses.flatMap((response, index) => {
    const mean = scores[index] ?? null;
    const question = judge.question?.(response);
    if (mean === null || question === undefined) return [];
    let nearest: { text: string; score: number } | null = null;
    for (const { text, score } of judgements[index] ?? []) {
      if (score === null) continue;
      if (nearest === null || Math.abs(score - mean) < Math.abs(nearest.score - mean)) nearest = { text, score };
    }
    if (nearest === null) return [];
    const { text, score } = nearest;
    return [
      {
        prompt: [{ role: "user" as const, content: partsText(question) }],
        prompt_parts: question.map((part) =>
          typeof part === "string" ? { text: part, untrusted: false } : { text: part.untrusted, untrusted: true },
        ),
        completion: [{ role: "assistant" as const, content: text }],
        score,
      },
    ];
  });
}
