import { deriveSeed } from "@tempora/training";
import {
  hashResponses,
  type Judge,
  JudgeCollapsed,
  type JudgedRows,
  type Judgement,
  type Response,
  readJudgements,
} from "../judges/judge.ts";
import { type JudgeChoice, makeJudge, secondJudge } from "../judges/make-judge.ts";
import { refuseCollapsed, verdictsOf } from "../judges/verdicts.ts";
import type { ModelRef } from "../models/model-ref.ts";
import type { GapSource, JudgeAudit, LedgerTotals } from "../results/results.ts";
import { dateFor, noteFinding, type Position, type RunContext, runStage } from "./context.ts";
import { StrategyEnded } from "./strategy-ended.ts";

export interface JudgePlan {
  /** Whose weights judge, where the judge is a model of the run. */
  judge: ModelRef;
  responses: readonly Response[];
  judgements: number;
  /** "candidates of M1" */
  label: string;
  /** False where a poor judge is to be measured, not to stop the run. */
  stopWhenCollapsed: boolean;
  position: Position;
}

export interface JudgeOutcome {
  /** The judge's name: a model's, a function's. */
  judge: string;
  /** In order: by response, attempt and sample. */
  judgements(): AsyncIterable<Judgement>;
  /** [responses] aggregated; null where no judgement gave a score. */
  scores: (number | null)[];
  /** Of a weighted sum: each part's own scores, [responses]. */
  parts: Record<string, (number | null)[]>;
  audit: JudgeAudit;
  totals: LedgerTotals;
}

/**
 * Judges every response and audits the judge. Throws StrategyEnded with the counts when the judge has collapsed or mostly
 * fails.
 */
export async function judgeStage(context: RunContext, plan: JudgePlan): Promise<JudgeOutcome> {
  const choice = { ...choiceOf(context, plan.judge), judgements: plan.judgements };
  return judgeWith(context, plan, makeJudge(choice));
}

export interface SecondOpinion extends JudgeOutcome {
  source: GapSource;
}

/** Judges the responses again with judgements that picked no pair; null where the judge has nothing new to say. */
export async function secondOpinionStage(
  context: RunContext,
  plan: Omit<JudgePlan, "judgements" | "stopWhenCollapsed">,
): Promise<SecondOpinion | null> {
  const choice = choiceOf(context, plan.judge);
  const judge = secondJudge({ ...choice, seed: deriveSeed(context.settings.seed, "held-back") });
  if (judge === null) return null;
  const label = `${plan.label}, again`;
  const outcome = await judgeWith(
    context,
    { ...plan, label, judgements: judge.perResponse, stopWhenCollapsed: false },
    judge,
  );
  return { ...outcome, source: judge.kind === "expected" ? "a second wording" : "held-back judgements" };
}

/** The judge that the run's settings describe, where it is a model with that model's weights. */
export function choiceOf(
  context: Pick<RunContext, "settings" | "source" | "now"> & { host: Pick<RunContext["host"], "use"> },
  judge: ModelRef,
): JudgeChoice {
  const { settings, source, host } = context;
  return {
    settings: settings.judge,
    template: source.judgeTemplate,
    model: { ...judge, now: context.now, load: () => host.use(judge) },
    seed: deriveSeed(settings.seed, "judge"),
    limits: settings.generation,
    maxTokens: settings.training.maxTokens,
  };
}

async function judgeWith(context: RunContext, plan: JudgePlan, judge: Judge): Promise<JudgeOutcome> {
  const { responses } = plan;
  const { settings } = context;
  const limits = plan.stopWhenCollapsed ? settings.judge.limits : null;
  const { tokenizer } = await context.host.open(plan.judge);
  try {
    const { result, folder } = await runStage<JudgedRows>(context, {
      kind: "judgements",
      label: `${judge.name} judges ${plan.label}`,
      total: responses.length * judge.perResponse,
      unit: "judgements",
      position: plan.position,
      inputs: {
        judge: judge.identity,
        responses: hashResponses(judge, responses),
        date: dateFor(context, tokenizer),
        limits,
      },
      compute: (folder, progress) => judge.judge(responses, { folder, progress, limits, signal: context.signal }),
    });
    const { noRoom, ...verdicts } = await verdictsOf(judge, responses, folder, result.rows, settings.judge.aggregation);
    if (noRoom !== null) noteFinding(context, `${plan.label}: ${noRoom}`);
    if (limits !== null) refuseCollapsed(judge, verdicts.audit, limits);
    const judgements = () => readJudgements(folder, result.rows);
    return { ...verdicts, judge: judge.name, judgements, totals: result.totals };
  } catch (error) {
    if (!(error instanceof JudgeCollapsed)) throw error;
    const { where, remedy } = error;
    throw new StrategyEnded(`${error.what} (${plan.label})`, { where, remedy, cause: error });
  }
}
