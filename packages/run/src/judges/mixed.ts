import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { fileError, type Json } from "@tempora/errors";
import { type Aggregation, aggregate, type ScoreFailure } from "@tempora/preferences";
import type { Tokenizer } from "@tempora/text";
import { addTotals, noTokens } from "../results/ledger.ts";
import type { LedgerTotals } from "../results/results.ts";
import { RowLog } from "../store/row-log.ts";
import {
  byResponse,
  type Judge,
  type JudgedRows,
  type Judgement,
  type JudgeWork,
  judgementLog,
  type Response,
  readJudgements,
} from "./judge.ts";

export interface MixedPart {
  /** Its word in the report: "bullets", "quality". */
  name: string;
  weight: number;
  judge: Judge;
}

/**
 * A weighted sum of judges: Σ weight · (score − min) / (max − min) / Σ |weight|, on the parts' own scales, which do not
 * depend on what else is judged, so that scores of different pools compare. Each part's own score stays in the
 * judgement. An answer that one part gives no score has none. A part of weight 0 is measured only: with it and without it
 * the scores are the same.
 */
export function mixedJudge(parts: readonly MixedPart[], how: Aggregation): Judge {
  const reading = parts.flatMap(({ judge }) => (judge.contextOf === undefined ? [] : [judge]));
  const total = parts.reduce((sum, { weight }) => sum + Math.abs(weight), 0);
  const share = (sign: 1 | -1) => parts.reduce((sum, { weight }) => sum + Math.max(0, sign * weight), 0) / total;
  return {
    kind: "function",
    name: parts.map(({ name, judge }) => (name === judge.name ? name : `${name} of ${judge.name}`)).join(" + "),
    origin: parts.map(({ judge }) => judge.origin).join("; "),
    identity: {
      kind: "mixed",
      aggregation: how,
      parts: parts.map(({ name, weight, judge }) => ({ name, weight, judge: judge.identity })),
    } satisfies Json,
    scale: { min: 0 - share(-1), max: share(1) },
    perResponse: parts.reduce((sum, { judge }) => sum + judge.perResponse, 0),
    deterministic: parts.every(({ judge }) => judge.deterministic),
    readsColumns: parts.some(({ judge }) => judge.readsColumns),
    question: null,
    ...(reading.length > 0 && {
      contextOf: (response: Response, tokenizer: Tokenizer) =>
        Math.max(...reading.map((judge) => judge.contextOf?.(response, tokenizer) ?? 0)),
    }),
    judge: (responses, work) => judgeByParts(parts, how, responses, work),
  };
}

async function judgeByParts(
  parts: readonly MixedPart[],
  how: Aggregation,
  responses: readonly Response[],
  work: JudgeWork,
): Promise<JudgedRows> {
  let totals: LedgerTotals = noTokens();
  let done = 0;
  const verdicts: PartVerdicts[] = [];
  for (const [index, { judge }] of parts.entries()) {
    const before = done;
    // A folder each: a part is a whole judge with a log of its own.
    const folder = join(work.folder, `part-${index}`);
    await makeFolder(folder);
    const judged = await judge.judge(responses, {
      ...work,
      folder,
      progress: (count, extra) => {
        done = before + count;
        work.progress(done, extra);
      },
    });
    totals = addTotals(totals, judged.totals);
    verdicts.push(await partVerdicts(folder, judged, responses.length, how));
  }
  const log = await RowLog.open<Judgement>(work.folder, judgementLog.name, { place: judgementLog.place });
  try {
    for (const response of responses.keys()) await log.add(weighed(parts, verdicts, response));
    return { rows: await log.seal(), totals };
  } finally {
    await log.close();
  }
}

/** What a part says of the responses. */
interface PartVerdicts {
  /** [responses] */
  scores: (number | null)[];
  /** Responses whose question its context does not hold. */
  noRoom: Set<number>;
}

async function partVerdicts(
  folder: string,
  judged: JudgedRows,
  count: number,
  how: Aggregation,
): Promise<PartVerdicts> {
  const scores = new Array<number | null>(count).fill(null);
  const noRoom = new Set<number>();
  for await (const { response, judgements } of byResponse(readJudgements(folder, judged.rows))) {
    const own = judgements.map(({ score }) => score);
    scores[response] = aggregate(own, how);
    if (judgements.some(({ failure }) => failure === "no-room")) noRoom.add(response);
  }
  return { scores, noRoom };
}

function weighed(parts: readonly MixedPart[], verdicts: readonly PartVerdicts[], response: number): Judgement {
  const own: Record<string, number | null> = {};
  let sum = 0;
  let weights = 0;
  let failure: ScoreFailure | null = null;
  parts.forEach(({ name, weight, judge }, part) => {
    const { scores, noRoom } = verdicts[part] as PartVerdicts;
    const score = scores[response] ?? null;
    own[name] = score;
    weights += Math.abs(weight);
    if (weight === 0) return;
    if (score === null) failure = noRoom.has(response) ? "no-room" : (failure ?? "no-score");
    else sum += (weight * (score - judge.scale.min)) / (judge.scale.max - judge.scale.min);
  });
  const score = failure === null ? sum / weights : null;
  return { response, attempt: 0, sample: 0, text: "", tokens: 0, score, failure, parts: own };
}

async function makeFolder(folder: string): Promise<void> {
  try {
    await mkdir(folder, { recursive: true });
  } catch (error) {
    throw fileError(error, "Cannot create the folder", folder);
  }
}
