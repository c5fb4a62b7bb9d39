import {
  type Aggregation,
  type AuditedJudgement,
  aggregate,
  auditJudgements,
  type Collapse,
  type CollapseLimits,
  collapsed,
  mean,
  type ScoreFailure,
} from "@tempora/preferences";
import type { JudgeAudit } from "../results/results.ts";
import type { JudgeKind } from "../settings/judge-settings.ts";
import type { SealedRows } from "../store/row-log.ts";
import { type Judge, JudgeCollapsed, type Judgement, type Response, readJudgements } from "./judge.ts";

export interface Verdicts {
  /** [responses] aggregated; null where no judgement gave a score. */
  scores: (number | null)[];
  audit: JudgeAudit;
  /** Mean of each part of a weighted sum, [responses]; empty for other judges. */
  parts: Record<string, (number | null)[]>;
  /** Says how many responses have no room in the judge's context, and which is the first; null: none. */
  noRoom: string | null;
}

/** What a judge's judgements come to: a score a response, and what they say of the judge. */
export async function verdictsOf(
  judge: Judge,
  responses: readonly Response[],
  folder: string,
  rows: SealedRows,
  how: Aggregation,
): Promise<Verdicts> {
  const lists: Verdict[][] = responses.map(() => []);
  const parts: Record<string, (number | null)[]> = {};
  const masses: number[] = [];
  for await (const judgement of readJudgements(folder, rows)) {
    lists[judgement.response]?.push(judgement.score ?? judgement.failure);
    if (judgement.mass !== undefined) masses.push(judgement.mass);
    for (const [name, score] of Object.entries(judgement.parts ?? {})) {
      parts[name] ??= responses.map(() => null);
      parts[name][judgement.response] = score;
    }
  }
  const scores = lists.map((list) => aggregate(list.map(scoreOf), how));
  const unscored = scores.filter((score) => score === null).length;
  return {
    scores,
    audit: {
      ...auditJudgements(auditedRows(responses, lists), judge.scale),
      judge: judge.name,
      unscored,
      mass: meanOf(masses),
    },
    parts,
    noRoom: noRoomText(responses, lists),
  };
}

function noRoomText(responses: readonly Response[], lists: readonly (readonly Verdict[])[]): string | null {
  const without = [...responses.keys()].filter((response) => lists[response]?.includes("no-room"));
  const first = without[0];
  if (first === undefined) return null;
  const { where } = responses[first] as Response;
  const place = where?.row === undefined ? "" : ` The first: row ${where.row} of ${where.file}.`;
  return `${without.length} of ${responses.length} answers have no score: the judge's context does not hold the question about them.${place}`;
}

/** A score, or why there is none. */
type Verdict = number | ScoreFailure | null;

function scoreOf(verdict: Verdict): number | null {
  return typeof verdict === "number" ? verdict : null;
}

function* auditedRows(responses: readonly Response[], lists: readonly (readonly Verdict[])[]) {
  for (const [response, list] of lists.entries()) {
    for (const verdict of list) {
      const score = scoreOf(verdict);
      const failure = typeof verdict === "number" ? null : verdict;
      yield auditedRow(responses, { response, score, failure });
    }
  }
}

function meanOf(values: readonly number[]): number | null {
  return values.length === 0 ? null : mean(values);
}

export function auditedRow(
  responses: readonly Response[],
  { response, score, failure }: Pick<Judgement, "response" | "score" | "failure">,
): AuditedJudgement {
  const { promptId } = responses[response] as Response;
  return { prompt: promptId, response: String(response), score, ...(failure === null ? {} : { failure }) };
}

/** What helps a judge that does not speak: the audit's own remedies are for one that does. */
const remedies: Partial<Record<JudgeKind, Record<Collapse["reason"], string>>> = {
  expected: {
    unparsed: "Shorten prompts or answers so that the judge's question fits its context, or name another judge.",
    constant: "Ask it another question (judge.template); `tempora judge --calibrate` measures them.",
    ties: "Ask it another question (judge.template); `tempora judge --calibrate` measures them.",
  },
  function: {
    unparsed: "Let the functions return numbers; null says that there is no score.",
    constant: "Try the functions on some answers (`tempora judge --judge function`), or weigh them with judge.quality.",
    ties: "Let the functions tell better from worse by degrees, or weigh them with judge.quality: ties make no pairs.",
  },
};

/** @throws JudgeCollapsed with the counts and a remedy where the judgements are of no use. */
export function refuseCollapsed(
  judge: Pick<Judge, "kind" | "name" | "origin" | "scale">,
  audited: Iterable<AuditedJudgement> | JudgeAudit,
  limits: CollapseLimits,
): void {
  const audit = "judgements" in audited ? audited : auditJudgements(audited, judge.scale);
  const collapse = collapsed(audit, limits);
  if (collapse === null) return;
  throw new JudgeCollapsed(`The judge ${judge.name} is of no use here: ${collapse.counts}`, {
    where: { file: judge.origin },
    remedy: remedies[judge.kind]?.[collapse.reason] ?? collapse.remedy,
  });
}
