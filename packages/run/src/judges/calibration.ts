import { canonical, type Json, type Place, TemporaError } from "@tempora/errors";
import { type WinRate, winRate } from "@tempora/preferences";
import { type Conversation, promptRow, type SourceRow, shownText } from "@tempora/text";
import type { Response } from "./judge.ts";

/** Two answers to one prompt whose order is known. */
export interface KnownPair {
  prompt: Conversation;
  variables?: Record<string, unknown>;
  /** As a judge that reads text is shown it. */
  promptText: string;
  better: string;
  worse: string;
  where: Place;
}

/** How a judge's scores agree with an order that is known. Shares are of rows; a tie counts half. */
export interface Calibration {
  rows: number;
  /** The better answer above the worse. */
  ranked: WinRate;
  /** The better answer above the better answer to another prompt, both judged as answers to this one. */
  betterAboveOther: WinRate;
  /** The worse answer above the worse answer to another prompt. */
  worseAboveOther: WinRate;
  /** Responses without a score: their rows are left out. */
  unscored: number;
}

/**
 * Pairs of known order from a row {prompt, better, worse}, or {prompt, completions: [{text, score}]}: then every two
 * completions of different scores.
 */
export function knownPairs(source: SourceRow, file: string): KnownPair[] {
  const where = { file, row: source.row };
  const parsed = promptRow(source, file);
  const { better, worse, completions } = source.value;
  if (!("prompt" in parsed)) throw unknownOrder(where);
  const { prompt } = parsed;
  const { variables } = parsed;
  const shared = { prompt, promptText: shownText(prompt, variables), where };
  const known = variables === undefined ? shared : { ...shared, variables };
  if (typeof better === "string" && typeof worse === "string") return [{ ...known, better, worse }];
  if (!Array.isArray(completions)) throw unknownOrder(where);
  const scored = completions.map((value: unknown) => {
    const { text, score } = (value ?? {}) as { text?: unknown; score?: unknown };
    if (typeof text !== "string" || typeof score !== "number") throw unknownOrder(where);
    return { text, score };
  });
  return scored.flatMap((a) =>
    scored.filter((b) => a.score > b.score).map((b) => ({ ...known, better: a.text, worse: b.text })),
  );
}

function unknownOrder(where: Place): TemporaError {
  return new TemporaError("The order of the row's answers is not known", {
    where,
    remedy: "Give {prompt, better, worse} as texts, or {prompt, completions: [{text, score}]}.",
  });
}

/** What a judge must score for a calibration, each response once, and what its scores then say. */
export class CalibrationRows {
  readonly responses: Response[] = [];
  readonly #indices = new Map<string, number>();
  /** Of each pair: better, worse, another prompt's better and worse. */
  readonly #quartets: [number, number, number, number][];

  constructor(pairs: readonly KnownPair[]) {
    this.#quartets = pairs.map((pair, index) => {
      const other = anotherPrompt(pairs, index);
      return [pair.better, pair.worse, other.better, other.worse].map((text) => this.#response(pair, text)) as [
        number,
        number,
        number,
        number,
      ];
    });
  }

  measure(scores: readonly (number | null)[]): Calibration {
    const compare = (a: 0 | 1, b: 1 | 2 | 3): WinRate => {
      const both = this.#quartets.flatMap((quartet) => {
        const [x, y] = [scores[quartet[a]] ?? null, scores[quartet[b]] ?? null];
        return x === null || y === null ? [] : [[x, y] as const];
      });
      return winRate(
        both.map(([x]) => x),
        both.map(([, y]) => y),
      );
    };
    return {
      rows: this.#quartets.length,
      ranked: compare(0, 1),
      betterAboveOther: compare(0, 2),
      worseAboveOther: compare(1, 3),
      unscored: scores.filter((score) => score === null).length,
    };
  }

  #response({ prompt, variables, promptText, where }: KnownPair, text: string): number {
    const key = canonical([promptText, text, variables] as Json);
    const known = this.#indices.get(key);
    if (known !== undefined) return known;
    const index =
      this.responses.push({ promptId: promptText, prompt, promptText, text, variables, columns: {}, where }) - 1;
    this.#indices.set(key, index);
    return index;
  }
}

/** The next pair of another prompt. */
function anotherPrompt(pairs: readonly KnownPair[], index: number): KnownPair {
  const own = (pairs[index] as KnownPair).promptText;
  for (let step = 1; step < pairs.length; step++) {
    const other = pairs[(index + step) % pairs.length] as KnownPair;
    if (other.promptText !== own) return other;
  }
  throw new TemporaError("All rows have the same prompt", {
    remedy: "Give rows of at least two prompts: a judge is also asked about the answer to another one.",
  });
}
