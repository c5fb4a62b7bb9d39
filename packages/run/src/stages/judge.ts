import { join } from "node:path";
import { hashJson } from "@tempora/errors";
import {
  aggregate,
  auditJudgements,
  type CollapseLimits,
  collapsed,
  judgePrompt,
  parseScore,
  type ScoreFailure,
} from "@tempora/preferences";
import { deriveSeed } from "@tempora/training";
import type { LoadedModel } from "../models/model-host.ts";
import type { ModelRef } from "../models/model-ref.ts";
import { Meter } from "../results/ledger.ts";
import type { JudgeAudit, LedgerTotals } from "../results/results.ts";
import { BufferedLog, meterPrompts, type SamplingRequest, sample } from "../sampling/sampling.ts";
import { ownPromptIds } from "../sources/conversation.ts";
import { type Position, type RunContext, runStage } from "./context.ts";
import { StrategyEnded } from "./ended.ts";

/** A response to judge. Responses must differ in prompt or text: equal ones are judged once, by the caller. */
export interface Response {
  promptId: string;
  promptText: string;
  text: string;
}

/** One sampled judgement, as the store keeps it. */
export interface Judgement {
  /** Index into the responses. */
  response: number;
  attempt: number;
  sample: number;
  text: string;
  tokens: number;
  score: number | null;
  failure: ScoreFailure | null;
}

export interface JudgePlan {
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
  judgements: Judgement[];
  /** [responses] aggregated; null when no judgement parsed. */
  scores: (number | null)[];
  audit: JudgeAudit;
  totals: LedgerTotals;
}

/**
 * Samples judgements of every response, samples those again that do not parse, up to the limit, and audits the judge.
 * Throws StrategyEnded with the counts when the judge has collapsed or mostly fails.
 */
export async function judgeStage(context: RunContext, plan: JudgePlan): Promise<JudgeOutcome> {
  const { judge, responses } = plan;
  const { settings, source } = context;
  const seed = deriveSeed(settings.seed, "judge");
  const { result } = await runStage(context, {
    kind: "judgements",
    label: `${judge.name} judges ${plan.label}`,
    total: responses.length * plan.judgements,
    unit: "judgements",
    position: plan.position,
    inputs: {
      judge: judge.hash,
      responses: hashJson(responses.map(({ promptText, text }) => [promptText, text])),
      template: { ...source.judgeTemplate },
      judgements: plan.judgements,
      retries: settings.judge.retries,
      sampling: settings.judge.sampling,
      limits: plan.stopWhenCollapsed ? settings.judge.limits : null,
      seed,
    },
    compute: async (folder, progress) => {
      const loaded = await context.host.use(judge);
      const log = await BufferedLog.open<Judgement>(join(folder, "judgements.jsonl"));
      try {
        const bench = new Bench(context, plan, loaded, log, seed, progress);
        return await bench.run();
      } finally {
        await log.close();
      }
    },
  });
  const scores = aggregated(result.judgements, responses.length, settings.judge.aggregation);
  const audit = auditOf(plan, result.judgements, scores);
  if (plan.stopWhenCollapsed) refuseCollapsed(context, plan, audit);
  return { ...result, scores, audit };
}

/** Responses that are judged first, to see whether the judge judges at all. */
const probeResponses = 32;

/** A response that an attempt judges, and the samples of it that an earlier process made. */
interface Asked {
  response: number;
  request: SamplingRequest;
  have: Set<number>;
}

/** One run of a judge over the responses, attempt after attempt. */
class Bench {
  readonly #meter: Meter;
  readonly #byResponse: Judgement[][];
  readonly #prompts: (number[] | null)[];
  #parsed = 0;

  constructor(
    readonly context: RunContext,
    readonly plan: JudgePlan,
    readonly loaded: LoadedModel,
    readonly log: BufferedLog<Judgement>,
    readonly seed: number,
    readonly progress: (done: number, extra?: Record<string, number>) => void,
  ) {
    const { tokenizer, checkpoint } = loaded;
    const { judgeTemplate } = context.source;
    this.#meter = new Meter(checkpoint.config);
    this.#byResponse = plan.responses.map(() => []);
    for (const judgement of log.rows) this.#take(judgement);
    this.#prompts = plan.responses.map(({ promptText, text }) =>
      ownPromptIds(judgePrompt(judgeTemplate, promptText, text), tokenizer, checkpoint.config.maxPositions),
    );
  }

  async run(): Promise<{ judgements: Judgement[]; totals: LedgerTotals }> {
    for (let attempt = 0; attempt <= this.context.settings.judge.retries; attempt++) await this.#attempt(attempt);
    const judgements = this.#byResponse.flatMap((list) =>
      list.sort((a, b) => a.attempt - b.attempt || a.sample - b.sample),
    );
    for (const { response, tokens } of judgements) {
      this.#meter.generated(this.#prompts[response]?.length ?? 0, tokens, "judgement");
    }
    return { judgements, totals: this.#meter.totals };
  }

  #take(judgement: Judgement): void {
    this.#byResponse[judgement.response]?.push(judgement);
    if (judgement.score !== null) this.#parsed++;
  }

  async #add(judgement: Judgement): Promise<void> {
    this.#take(judgement);
    await this.log.add(judgement);
  }

  /** Judgements of earlier attempts that parsed: they need no retry. */
  #parsedBefore(response: number, attempt: number): number {
    const list = this.#byResponse[response] as Judgement[];
    return list.filter((judgement) => judgement.attempt < attempt && judgement.score !== null).length;
  }

  async #attempt(attempt: number): Promise<void> {
    const { plan, context } = this;
    const requests: SamplingRequest[] = [];
    const asked: Asked[] = [];
    for (const [response, ids] of this.#prompts.entries()) {
      const samples = plan.judgements - this.#parsedBefore(response, attempt);
      if (samples === 0) continue;
      const list = this.#byResponse[response] as Judgement[];
      const have = new Set(list.filter((judgement) => judgement.attempt === attempt).map(({ sample }) => sample));
      if (ids === null) {
        if (attempt === 0 && have.size === 0) await this.#noRoom(response);
        continue;
      }
      const { promptText, text } = plan.responses[response] as Response;
      const request = { key: JSON.stringify([promptText, text, attempt]), ids, samples };
      requests.push(request);
      asked.push({ response, request: have.size < samples ? request : { ...request, samples: 0 }, have });
    }
    meterPrompts(this.#meter, requests);
    this.progress(this.#parsed);
    if (attempt > 0 || !plan.stopWhenCollapsed) return this.#sample(attempt, asked);
    // A judge whose first judgements nearly all fail is not worth the rest.
    const probe = asked.filter(({ response }) => response < probeResponses);
    await this.#sample(attempt, probe);
    this.#stopHopeless();
    await this.#sample(attempt, asked.slice(probe.length));
    refuseCollapsed(context, plan, auditOf(plan, this.#byResponse.flat(), []));
  }

  async #sample(attempt: number, asked: readonly Asked[]): Promise<void> {
    const { settings, source, signal } = this.context;
    const sampled = sample(
      this.loaded,
      asked.map(({ request }) => request),
      { sampling: settings.judge.sampling, limits: settings.generation, seed: this.seed, signal },
    );
    for await (const { request, sample: number, text, ids, finishReason } of sampled) {
      const { response, have } = asked[request] as Asked;
      if (have.has(number)) continue;
      const parsed = parseScore(text, { max: source.judgeTemplate.maxScore, finished: finishReason === "stop" });
      const verdict =
        "score" in parsed ? { score: parsed.score, failure: null } : { score: null, failure: parsed.failure };
      await this.#add({ response, attempt, sample: number, text, tokens: ids.length, ...verdict });
      this.progress(this.#parsed);
    }
  }

  #stopHopeless(): void {
    const { limits } = this.context.settings.judge;
    const judgements = this.#byResponse.slice(0, probeResponses).flat();
    if (judgements.length < limits.minJudgements) return;
    const maxFailureRate = (1 + limits.maxFailureRate) / 2;
    refuseCollapsed(this.context, this.plan, auditOf(this.plan, judgements, []), {
      ...limits,
      maxFailureRate,
      minJudgements: Number.POSITIVE_INFINITY,
    });
  }

  /** The judge's prompt fills the context: no judgement can be finished. */
  async #noRoom(response: number): Promise<void> {
    await this.#add({ response, attempt: 0, sample: 0, text: "", tokens: 0, score: null, failure: "cut-off" });
  }
}

function aggregated(judgements: readonly Judgement[], count: number, how: "mean" | "median"): (number | null)[] {
  const scores: (number | null)[][] = Array.from({ length: count }, () => []);
  for (const { response, score } of judgements) scores[response]?.push(score);
  return scores.map((list) => aggregate(list, how));
}

function auditOf(plan: JudgePlan, judgements: readonly Judgement[], scores: readonly (number | null)[]): JudgeAudit {
  const audit = auditJudgements(
    judgements.map(({ response, score, failure }) => ({
      prompt: (plan.responses[response] as Response).promptId,
      response: String(response),
      score,
      ...(failure === null ? {} : { failure }),
    })),
  );
  return { ...audit, judge: plan.judge.name, unscored: scores.filter((score) => score === null).length };
}

function refuseCollapsed(
  context: RunContext,
  plan: JudgePlan,
  audit: JudgeAudit,
  limits: CollapseLimits = context.settings.judge.limits,
): void {
  const collapse = collapsed(audit, limits);
  if (collapse === null) return;
  throw new StrategyEnded(`The judge ${plan.judge.name} is of no use on the ${plan.label}: ${collapse.counts}`, {
    where: { file: plan.judge.folder },
    remedy: collapse.remedy,
  });
}
