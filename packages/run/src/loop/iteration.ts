import { join } from "node:path";
import { interval95, type PhaseRule, type Pools, rolesOf, type Strategy, selectPairs } from "@tempora/preferences";
import { asCompletion, writeJsonl } from "@tempora/text";
import type { ModelRef } from "../models/model-ref.ts";
import type {
  CandidateRow,
  IterationResult,
  LedgerEntry,
  LedgerTotals,
  PairRow,
  PhaseResult,
  PoolRole,
} from "../results/results.ts";
import { pairIds } from "../sources/conversation.ts";
import type { Task } from "../sources/source.ts";
import type { Position, RunContext } from "../stages/context.ts";
import { StrategyEnded } from "../stages/ended.ts";
import { cosineStage } from "../stages/represent.ts";
import { preferenceStage, referenceStage } from "../stages/train.ts";
import { makePool, type Pool } from "./pools.ts";

export interface IterationPlan {
  strategy: Strategy;
  /** 0-based. */
  index: number;
  /** M_i: answers, is trained, and is the reference. */
  current: ModelRef;
  /** M_0. */
  past: ModelRef;
  judge: ModelRef;
  /** The run folder, and the strategy's folder in it ("" or "<strategy>/"). */
  runFolder: string;
  strategyFolder: string;
}

export interface IterationOutcome {
  next: ModelRef;
  result: IterationResult;
}

/** One iteration of a strategy: its pools, phase after phase, the models they train, and the files for people. */
export async function runIteration(context: RunContext, plan: IterationPlan): Promise<IterationOutcome> {
  return new Iteration(context, plan).run();
}

class Iteration {
  readonly #number: number;
  readonly #position: Position;
  readonly #tasks: readonly Task[];
  readonly #folder: string;
  /** In the order in which they were made. */
  readonly #made: Pool[] = [];
  readonly #pools = new Map<PoolRole, Pool>();
  readonly #ledger: LedgerEntry[] = [];
  readonly #candidates = new Map<string, CandidateRow>();
  #future: ModelRef | null = null;
  #next: ModelRef | null = null;

  constructor(
    readonly context: RunContext,
    readonly plan: IterationPlan,
  ) {
    this.#number = plan.index + 1;
    this.#position = { strategy: plan.strategy.name, iteration: this.#number };
    this.#tasks = context.source.training(plan.index, context.settings.promptsPerIteration);
    this.#folder = `${plan.strategyFolder}iterations/${this.#number}`;
  }

  async run(): Promise<IterationOutcome> {
    const { plan } = this;
    const phases: PhaseResult[] = [];
    await this.#pool("current");
    for (const [index, rule] of plan.strategy.phases.entries()) phases.push(await this.#phase(rule, index + 1));
    if (this.#next === null) throw new TypeError(`no phase of ${plan.strategy.name} trains the next model`);
    const candidatesFile = `${this.#folder}/candidates.jsonl`;
    const judgementsFile = `${this.#folder}/judgements.jsonl`;
    await this.#write(
      candidatesFile,
      this.#made.flatMap(({ candidates }) => candidates),
    );
    await this.#write(
      judgementsFile,
      this.#made.flatMap(({ judgements }) => judgements),
    );
    return {
      next: this.#next,
      result: {
        iteration: this.#number,
        prompts: this.#tasks.length,
        start: plan.current.name,
        next: this.#next.name,
        candidatesFile,
        judgementsFile,
        phases,
        audits: this.#made.map(({ audit }) => audit),
        ledger: this.#ledger,
      },
    };
  }

  async #write(file: string, rows: readonly unknown[]): Promise<void> {
    await writeJsonl(join(this.plan.runFolder, file), rows);
  }

  /** The pool of a role, made when it is first asked for. In the first iteration the past is the present. */
  async #pool(role: PoolRole): Promise<Pool> {
    const known = this.#pools.get(role);
    if (known !== undefined) return known;
    const model = this.#modelOf(role);
    const same = this.#made.find((pool) => pool.model === model.name);
    if (same !== undefined) {
      this.#pools.set(role, same);
      return same;
    }
    const { judge } = this.plan;
    const pool = await makePool(this.context, { role, model, judge, tasks: this.#tasks, position: this.#position });
    this.#pools.set(role, pool);
    this.#made.push(pool);
    this.#ledger.push(...pool.ledger);
    for (const candidate of pool.candidates) this.#candidates.set(candidate.id, candidate);
    return pool;
  }

  #modelOf(role: PoolRole): ModelRef {
    if (role === "current") return this.plan.current;
    if (role === "past") return this.plan.past;
    if (this.#future === null) throw new TypeError("a phase reads the future model's answers before one trains it");
    return this.#future;
  }

  async #phase(rule: PhaseRule, phase: number): Promise<PhaseResult> {
    const { plan, context } = this;
    const pools: Pool[] = [];
    for (const role of rolesOf(rule)) pools.push(await this.#pool(role));
    const roles = rolesOf(rule);
    const selection = selectPairs(
      rule,
      this.#tasks.map(({ id }, task) => ({
        prompt: id,
        pools: Object.fromEntries(roles.map((role, k) => [role, pools[k]?.judged[task] ?? []])) as Pools,
      })),
      context.settings.selection,
    );
    const rows = selection.pairs.map(({ chosen, rejected }) =>
      this.#pairRow(phase, this.#candidate(chosen.id), this.#candidate(rejected.id)),
    );
    if (rows.length === 0)
      throw noPairs(plan.strategy.name, this.#number, selection.dropped, [...this.#candidates.values()]);
    const pairsFile = `${this.#folder}/${rule.trains === "future" ? "pairs-future" : "pairs"}.jsonl`;
    await this.#write(pairsFile, rows);
    const name = `${rule.trains === "future" ? "F" : "M"}${this.#number}`;
    const trained = await this.#train(rows, pairsFile, name, phase);
    if (rule.trains === "future") this.#future = trained.model;
    else this.#next = trained.model;
    return {
      phase,
      name: rule.name,
      start: plan.current.name,
      trained: name,
      pairsFile,
      pairs: rows.length,
      dropped: selection.dropped,
      chosenRoles: countBy(rows.map(({ chosen_role }) => chosen_role)),
      rejectedRoles: countBy(rows.map(({ rejected_role }) => rejected_role)),
      scoreGap: interval95(rows.map((row) => row.chosen_score - row.rejected_score)),
      trueGap: trueGap(rows),
      cosine: interval95(trained.cosines),
      chosenLength: meanOf(selection.pairs.map(({ chosen }) => chosen.length)),
      rejectedLength: meanOf(selection.pairs.map(({ rejected }) => rejected.length)),
      training: trained.training,
    };
  }

  #candidate(id: string): CandidateRow {
    const candidate = this.#candidates.get(id);
    if (candidate === undefined) throw new TypeError(`no candidate ${id}`);
    return candidate;
  }

  #pairRow(phase: number, chosen: CandidateRow, rejected: CandidateRow): PairRow {
    return {
      prompt: chosen.prompt,
      chosen: asCompletion(chosen.prompt, chosen.text),
      rejected: asCompletion(rejected.prompt, rejected.text),
      prompt_id: chosen.prompt_id,
      iteration: this.#number,
      phase,
      chosen_score: chosen.score as number,
      rejected_score: rejected.score as number,
      chosen_role: chosen.role,
      rejected_role: rejected.role,
      chosen_model: chosen.model,
      rejected_model: rejected.model,
      chosen_id: chosen.id,
      rejected_id: rejected.id,
      chosen_true_score: chosen.true_score,
      rejected_true_score: rejected.true_score,
    };
  }

  async #train(rows: readonly PairRow[], file: string, name: string, phase: number) {
    const { context, plan } = this;
    const position = this.#position;
    const model = plan.current;
    const { tokenizer, checkpoint } = await context.host.open(model);
    const pairs = rows.map((row, index) => pairIds(row, index + 1, file, tokenizer, checkpoint.config.maxPositions));
    const cosines = await cosineStage(context, { model, pairs, position });
    const reference = await referenceStage(context, { model, pairs, position });
    this.#charge("reference", `pairs of phase ${phase}`, reference.totals);
    const trained = await preferenceStage(context, {
      start: model,
      name,
      pairs: pairs.map((pair, k) => ({
        ...pair,
        reference: reference.sums[k] as { chosen: number; rejected: number },
      })),
      phase,
      position,
    });
    this.#charge("train", name, trained.totals);
    return { ...trained, cosines: cosines.filter((value): value is number => value !== null) };
  }

  #charge(stage: LedgerEntry["stage"], label: string, totals: LedgerTotals): void {
    this.#ledger.push({ iteration: this.#number, stage, label, ...totals });
  }
}

function noPairs(
  strategy: string,
  iteration: number,
  dropped: Record<string, number>,
  candidates: readonly CandidateRow[],
): StrategyEnded {
  const reasons = Object.entries(dropped)
    .filter(([, count]) => count > 0)
    .map(([reason, count]) => `${reason} ${count}`);
  const empty = candidates.filter(({ text }) => text.trim() === "").length;
  const answers = empty === 0 ? "" : `; ${empty} of ${candidates.length} answers are empty`;
  return new StrategyEnded(`Iteration ${iteration} of ${strategy} has no pairs (${reasons.join(", ")}${answers})`, {
    remedy:
      2 * empty > candidates.length
        ? "The model does not answer these prompts: train it on demonstrations first, or use prompts of the kind that it knows."
        : "Sample more candidates or judgements, raise the temperature, or use prompts that the model answers unevenly.",
  });
}

function countBy(roles: readonly PoolRole[]): Partial<Record<PoolRole, number>> {
  const counts: Partial<Record<PoolRole, number>> = {};
  for (const role of roles) counts[role] = (counts[role] ?? 0) + 1;
  return counts;
}

function trueGap(rows: readonly PairRow[]) {
  const gaps = rows.flatMap(({ chosen_true_score: chosen, rejected_true_score: rejected }) =>
    chosen === null || rejected === null ? [] : [chosen - rejected],
  );
  return gaps.length === 0 ? null : interval95(gaps);
}

function meanOf(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}
