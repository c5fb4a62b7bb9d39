import {
  type Aggregation,
  type AuditedResponse,
  aggregate,
  auditJudgements,
  type Collapse,
  type CollapseLimits,
  collapsed,
  RunningAudit,
  scoreOf,
  type Verdict,
} from "@tempora/preferences";
import type { JudgeAudit } from "../results/results.ts";
import type { JudgeKind } from "../settings/judge-settings.ts";
import type { SealedRows } from "../store/row-log.ts";
import { byResponse, type Judge, JudgeCollapsed, type Judgement, type Response, readJudgements } from "./judge.ts";

export interface Verdicts {
  /** [responses] aggregated; null where no judgement gave a score. */
  scores: (number | null)[];
  audit: JudgeAudit;
  /** Mean of each part of a weighted sum, [responses]; empty for other judges. */
  parts: Record<string, (number | null)[]>;
  /** Says how many responses have no room in the judge's context, and which is the first; null: none. */
  noRoom: string | null;
}

/** What a judge's judgements come to: a score a response, and what they say of the judge. They are read once and not kept. */
export async function verdictsOf(
  judge: Judge,
  responses: readonly Response[],
  folder: string,
  rows: SealedRows,
  how: Aggregation,
): Promise<Verdicts> {
  const scores = new Array<number | null>(responses.length).fill(null);
  const parts: Record<string, (number | null)[]> = {};
  const audit = new RunningAudit(judge.scale);
  const mass = { sum: 0, count: 0 };
  const noRoom: number[] = [];
  for await (const { response, judgements } of byResponse(readJudgements(folder, rows))) {
    const verdicts = judgements.map(verdictOf);
    scores[response] = aggregate(verdicts.map(scoreOf), how);
    if (verdicts.includes("no-room")) noRoom.push(response);
    audit.add({ prompt: (responses[response] as Response).promptId, verdicts });
    for (const judgement of judgements) {
      if (judgement.mass !== undefined) {
        mass.sum += judgement.mass;
        mass.count++;
      }
      for (const [name, score] of Object.entries(judgement.parts ?? {})) {
        parts[name] ??= new Array<number | null>(responses.length).fill(null);
        parts[name][response] = score;
      }
    }
  }
  return {
    scores,
    audit: {
      ...audit.result(),
      judge: judge.name,
      unscored: scores.filter((score) => score === null).length,
      mass: mass.count === 0 ? null : mass.sum / mass.count,
    },
    parts,
    noRoom: noRoomText(responses, noRoom),
  };
}

function noRoomText(responses: readonly Response[], without: readonly number[]): string | null {
  const first = without[0];
  if (first === undefined) return null;
  const { where } = responses[first] as Response;
  const place = where?.row === undefined ? "" : ` The first: row ${where.row} of ${where.file}.`;
  return `${without.length} of ${responses.length} answers have no score: the judge's context does not hold the question about them.${place}`;
}

function verdictOf({ score, failure }: Judgement): Verdict {
  return score ?? failure;
}

/** What helps a judge that does not speak: the audit's own remedies are for one that does. */
const remedies: Partial<Record<JudgeKind, Record<Collapse["reason"], string>>> = {
  expected: {
    unparsed: "Shorten prompts or answers so that the judge's question fits its context, or name another judge.",
    constant: "Ask it another question (judge.template); `tempora judge --calibrate` measures them.",
    ties: "Ask it another question (judge.template); `tempora judge --calibrate` measures them.",
  },
  endpoint: {
    unparsed:
      "Give its judgements more tokens (judge.sampling.maxNewTokens, --max-new-tokens), ask for less (shorter answers, another judge.template), or name a better model.",
    constant: "Ask it another question (judge.template), or name a better model.",
    ties: "Ask for more judgements or at a higher temperature, or use harder prompts: ties make no pairs.",
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
  audited: Iterable<AuditedResponse> | JudgeAudit,
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
