/**
 * Why a judgement has no score:
 * - "no-score": it never states one
 * - "cut-off": it ends while, or before, stating it
 * - "out-of-range": it states a number outside 0..max, or one on another scale ("8/10")
 * - "unreadable": what follows "Score:" is no plain Latin number (a range, other digits, "4th", "80%")
 * - "ambiguous": it states several scores that differ
 * - "no-room": there is none, because the judge's context does not hold the question
 */
export type ScoreFailure = "no-score" | "cut-off" | "out-of-range" | "unreadable" | "ambiguous" | "no-room";

export type ParsedScore = { score: number } | { failure: ScoreFailure };

export interface ParseOptions {
  /** Highest score; the lowest is 0. */
  max?: number;
  /** False when the judge was stopped by its token limit. */
  finished?: boolean;
}

/** How surely a statement is the judge's verdict: a criterion's own score, "Score: n", or "Total score: n". */
type Rank = 0 | 1 | 2;

type Reading = { value: number } | { failure: ScoreFailure } | "placeholder" | "cut-off";

interface Statement {
  rank: Rank;
  reading: Reading;
}

// "Score:", "**Score**:", "Score (out of 5):", "Score =", and the label alone at the very end, where it was cut off.
const label = /score[*_`"']*(?:[ \t]*\([^()\n]{0,40}\))?[*_`"' \t]*(?:[:=：]|$)/giu;
const decoration = /^(?:[\s*_`"'“”‘’([{<$]|\\boxed|\\\(|\\text)+/u;
const plainNumber = /^[+\-−–]?(?:\d+(?:[.,]\d+)?|\.\d+)/u;
const sum = /^\d+(?:\.\d+)?(?:\s*\+\s*\d+(?:\.\d+)?)+\s*=\s*/u;
const scale = /^[*_`"')\]}>$]*\s*(?:\/|out of|of)\s*[*_`]*(\d+(?:\.\d+)?)(?!\d|[.,]\d|\s*\/)/iu;
// "3-4", "3 or 4", "1 + 1" without a sum, "4, 5", "4 5", "8/".
const rangeTail = /^[*_`"')\]}>$]*(?:[ \t]*(?:(?:-|–|—|~|\.\.+|\+|&|to|or|and)[ \t]*\d|\/)|[ \t]*[,;]?[ \t]+\d)/iu;
const gluedTail = /^(?:[\p{L}\p{N}%]|[.,]\p{N}|[+±])/u;
const placeholder = /^(?:[<[({]\s*\p{L}[^>\])}\n]*[>\])}]|(?:n|x|total|your)(?![\p{L}\p{N}]))/iu;

/**
 * The score that a judgement ends with. A "Total score: n" counts more than a "Score: n", and both more than a
 * criterion's ("Clarity score: 1"), which is never taken. All statements of the highest kind found must agree, and no
 * weaker verdict may contradict them later; the instruction's "Score: <total>" and score ranges echoed before the
 * verdict are passed over.
 */
export function parseScore(judgement: string, options: ParseOptions = {}): ParsedScore {
  const max = options.max ?? 5;
  const finished = options.finished ?? true;
  const text = withoutReasoning(judgement);
  if (text === null) return { failure: "cut-off" };
  const statements = readStatements(text, max, finished).filter(({ rank }) => rank > 0);
  const last = statements.at(-1);
  if (last?.reading === "cut-off") return { failure: "cut-off" };
  const verdicts = statements.filter(({ reading }) => reading !== "placeholder");
  if (verdicts.length === 0) return { failure: finished ? "no-score" : "cut-off" };
  return decide(verdicts);
}

function decide(verdicts: readonly Statement[]): ParsedScore {
  const top = Math.max(...verdicts.map(({ rank }) => rank));
  const firstTop = verdicts.findIndex(({ rank }) => rank === top);
  // What a weaker statement says before the total is a step on the way to it; afterwards it is a second opinion.
  const considered = verdicts.slice(firstTop);
  const final = (considered.at(-1) as Statement).reading;
  if (typeof final === "string") return { failure: "unreadable" };
  if ("failure" in final) return final;
  for (const { reading } of considered) {
    if (typeof reading === "string") continue;
    if ("failure" in reading) {
      if (reading.failure === "unreadable") continue;
      return { failure: "ambiguous" };
    }
    if (reading.value !== final.value) return { failure: "ambiguous" };
  }
  return { score: final.value };
}

/** Without the <think> part of a reasoning model; null when that part never ends. */
function withoutReasoning(judgement: string): string | null {
  const end = judgement.lastIndexOf("</think>");
  const text = end < 0 ? judgement : judgement.slice(end + "</think>".length);
  return text.includes("<think>") ? null : text;
}

function readStatements(text: string, max: number, finished: boolean): Statement[] {
  const statements: Statement[] = [];
  for (const match of text.matchAll(label)) {
    const rank = rankOf(text.slice(0, match.index));
    if (rank === null) continue;
    const stated = /[:=：]$/u.test(match[0]);
    // The bare word at the end of a finished text ("this earns a perfect score") states nothing.
    if (!stated && finished) continue;
    statements.push({
      rank,
      reading: stated ? read(text.slice(match.index + match[0].length), max, finished) : "cut-off",
    });
  }
  return statements;
}

/** How the label is introduced; null when it is the end of another word ("underscore:"). */
function rankOf(before: string): Rank | null {
  if (/[\p{L}\p{N}]$/u.test(before)) return null;
  const line = before.slice(before.lastIndexOf("\n") + 1).replace(/[*_`"'“‘\s]+$/u, "");
  const word = /(?:^|[\s*_`"'“‘(])(\p{L}+)$/u.exec(line)?.[1]?.toLowerCase();
  if (word === undefined) return 1;
  if (word === "total" || word === "final" || word === "overall") return 2;
  return ["the", "my", "a", "its", "this", "is", "and", "so", "response", "conclusion"].includes(word) ? 1 : 0;
}

function read(after: string, max: number, finished: boolean): Reading {
  const undecorated = after.replace(decoration, "");
  if (undecorated === "") return "cut-off";
  if (placeholder.test(after.trimStart()) && !/^\p{N}/u.test(undecorated)) return "placeholder";
  const added = sum.exec(undecorated);
  const rest = added === null ? undecorated : undecorated.slice(added[0].length).replace(decoration, "");
  const number = plainNumber.exec(rest);
  if (number === null) return { failure: "unreadable" };
  const tail = rest.slice(number[0].length);
  if (tail === "" && !finished) return "cut-off";
  const written = number[0].replace(/[−–]/u, "-");
  if (/,\d{3,}$/u.test(written) || gluedTail.test(tail)) return { failure: "unreadable" };
  const outOf = scale.exec(tail);
  if (outOf === null && rangeTail.test(tail)) return { failure: "unreadable" };
  if (outOf !== null && Number(outOf[1]) !== max) return { failure: "out-of-range" };
  const value = Number(written.replace(",", "."));
  return value >= 0 && value <= max ? { value: Math.abs(value) } : { failure: "out-of-range" };
}
