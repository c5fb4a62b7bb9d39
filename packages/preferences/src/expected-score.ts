import type { JudgeAnswer } from "./judge-prompt.ts";

/** A spelling of an answer as tokens, after what all spellings have in common. */
export interface AnswerPath {
  /** Index into the template's answers. */
  answer: number;
  ids: readonly number[];
}

export interface ExpectedScore {
  /** Σ p(answer) · value over the answers, their probabilities normalised to 1. */
  score: number;
  /** [answers] normalised. */
  probabilities: number[];
  /** Share of all probability that lies on the answers: near 0, the judge would say something else altogether. */
  mass: number;
}

/**
 * The score that a judge gives on average, from the log-probs of its possible answers: Σ p(s) · s, or p(yes) where yes is
 * worth 1 and no 0. Several spellings of an answer add up. Where the tokens of one spelling begin those of another ("1"
 * and "10"), the longer one's probability is taken out of the shorter one's. null when all probabilities are zero.
 */
export function expectedScore(
  answers: readonly JudgeAnswer[],
  paths: readonly AnswerPath[],
  logProbs: readonly number[],
): ExpectedScore | null {
  const exact = exactProbabilities(paths, logProbs);
  const sums = answers.map(() => 0);
  paths.forEach(({ answer }, path) => {
    sums[answer] = (sums[answer] as number) + (exact[path] as number);
  });
  const mass = sums.reduce((sum, value) => sum + value, 0);
  if (!(mass > 0)) return null;
  const probabilities = sums.map((value) => value / mass);
  const score = probabilities.reduce((sum, p, index) => sum + p * (answers[index] as JudgeAnswer).value, 0);
  return { score, probabilities, mass };
}

/** Longest first, so that what a path excludes is known when its turn comes. */
function exactProbabilities(paths: readonly AnswerPath[], logProbs: readonly number[]): number[] {
  const exact = new Array<number>(paths.length).fill(0);
  const order = paths.map((_, index) => index);
  order.sort((a, b) => (paths[b] as AnswerPath).ids.length - (paths[a] as AnswerPath).ids.length);
  for (const path of order) {
    const { ids } = paths[path] as AnswerPath;
    let probability = Math.exp(logProbs[path] as number);
    paths.forEach((other, index) => {
      if (index !== path && begins(ids, other.ids)) probability -= exact[index] as number;
    });
    exact[path] = Math.max(0, probability);
  }
  return exact;
}

function begins(short: readonly number[], long: readonly number[]): boolean {
  return short.length < long.length && short.every((id, index) => long[index] === id);
}
