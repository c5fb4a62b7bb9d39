import { join, relative } from "node:path";
import type { Json } from "@tempora/errors";
import { type PhaseRule, rolesOf, type Strategy } from "@tempora/preferences";
import { writeJsonl } from "@tempora/text";
import { baseOf, type ModelRef } from "../models/model-ref.ts";
import type { IterationResult, LedgerEntry, LedgerTotals, PhaseResult, PoolRole } from "../results/results.ts";
import type { Task } from "../sources/source.ts";
import { type Answers, answersTogether } from "../stages/answer.ts";
import { noteFinding, type Position, type RunContext } from "../stages/context.ts";
import { keptOutcome } from "../stages/outcome.ts";
import { pairCosinesStage } from "../stages/pair-cosines.ts";
import { referenceStage } from "../stages/reference.ts";
import { preferenceStage, trainedModel } from "../stages/train.ts";
import { measuredGap } from "./gap.ts";
import { hashExamples, nameAndHash, outcomeInputs } from "./outcome-inputs.ts";
import { type FormedPairs, formPairs } from "./pairs.ts";
import { candidatesPlan, makePool, type Pool } from "./pools.ts";

export interface IterationPlan {
  strategy: Strategy;
  /** 0-based. */
  index: number;
  /** M_i. */
  current: ModelRef;
  /** The strategy's past model: M_0, or a later one before M_i. */
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

/** The next model by what the store has of it. */
interface KeptIteration {
  next: Pick<ModelRef, "name" | "hash" | "files">;
  /** Its folder, from that of the store. */
  folder: string;
  result: IterationResult;
}

/**
 * One iteration of a strategy: its pools, phase after phase, the models they train, and the files for people. Where it has
 * been finished before, no row of it is read again.
 */
export async function runIteration(context: RunContext, plan: IterationPlan): Promise<IterationOutcome> {
  const { store, settings, source } = context;
  const { current, strategy, runFolder } = plan;
  const tasks = source.training(plan.index, settings.promptsPerIteration);
  const { next, folder, result } = await keptOutcome<KeptIteration>(context, {
    kind: "iteration",
    label: `iteration ${plan.index + 1} of ${strategy.name}`,
    runFolder,
    inputs: {
      ...outcomeInputs(context, plan, tasks),
      strategy: strategy as unknown as Json,
      index: plan.index,
      current: nameAndHash(current),
      past: nameAndHash(plan.past),
      replay: hashExamples(source.replay),
    },
    files: ({ result: { candidatesFile, judgementsFile, phases } }) => [
      candidatesFile,
      judgementsFile,
      ...phases.map(({ pairsFile }) => pairsFile),
    ],
    compute: async (recording) => {
      const { next, result } = await new Iteration(recording, plan, tasks).run();
      const { name, hash, files } = next;
      return { next: { name, hash, files }, folder: relative(store.folder, next.folder), result };
    },
  });
  return { result, next: await trainedModel(context, current, { ...next, folder: join(store.folder, folder) }) };
}

class Iteration {
  readonly #number: number;
  readonly #position: Position;
  readonly #folder: string;
  /** In the order in which they were made. */
  readonly #made: Pool[] = [];
  readonly #pools = new Map<PoolRole, Pool>();
  readonly #ledger: LedgerEntry[] = [];
  /** By model: those that were sampled together. */
  readonly #answers = new Map<string, Answers>();
  #future: ModelRef | null = null;
  #next: ModelRef | null = null;

  constructor(
    readonly context: RunContext,
    readonly plan: IterationPlan,
    readonly tasks: readonly Task[],
  ) {
    this.#number = plan.index + 1;
    this.#position = { strategy: plan.strategy.name, iteration: this.#number };
    this.#folder = `${plan.strategyFolder}iterations/${this.#number}`;
  }

  async run(): Promise<IterationOutcome> {
    const { plan } = this;
    const phases: PhaseResult[] = [];
    await this.#answerTogether();
    await this.#pool("current");
    for (const [index, rule] of plan.strategy.phases.entries()) phases.push(await this.#phase(rule, index + 1));
    if (this.#next === null) throw new TypeError(`no phase of ${plan.strategy.name} trains the next model`);
    const candidatesFile = `${this.#folder}/candidates.jsonl`;
    const judgementsFile = `${this.#folder}/judgements.jsonl`;
    await this.#write(candidatesFile, candidateRows(this.#made));
    await this.#write(judgementsFile, judgementRows(this.#made));
    return {
      next: this.#next,
      result: {
        iteration: this.#number,
        prompts: this.tasks.length,
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

  async #write(file: string, rows: Iterable<unknown> | AsyncIterable<unknown>): Promise<void> {
    await writeJsonl(join(this.plan.runFolder, file), rows);
  }

  /** Current and past model answer in one generation where they are adapters over one base. */
  async #answerTogether(): Promise<void> {
    const { current, past, strategy } = this.plan;
    const asked = strategy.phases.some((phase) => rolesOf(phase).includes("past"));
    const adapted = current.base !== null || past.base !== null;
    if (!asked || !adapted || current.hash === past.hash || baseOf(current).hash !== baseOf(past).hash) return;
    const plan = candidatesPlan(this.context.settings, this.tasks, this.#position);
    const models = [current, past];
    const answers = await answersTogether(this.context, { ...plan, models });
    for (const [index, { name }] of models.entries()) this.#answers.set(name, answers[index] as Answers);
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
    const answers = this.#answers.get(model.name);
    const plan = { role, model, judge, tasks: this.tasks, position: this.#position, answers };
    const pool = await makePool(this.context, plan);
    this.#pools.set(role, pool);
    this.#made.push(pool);
    this.#ledger.push(...pool.ledger);
    return pool;
  }

  #modelOf(role: PoolRole): ModelRef {
    if (role === "current") return this.plan.current;
    if (role === "past") return this.plan.past;
    if (this.#future === null) throw new TypeError("a phase needs the future model before one trains it");
    return this.#future;
  }

  async #phase(rule: PhaseRule, phase: number): Promise<PhaseResult> {
    const { plan, context } = this;
    const pools = new Map<PoolRole, Pool>();
    for (const role of rolesOf(rule)) pools.set(role, await this.#pool(role));
    const { tokenizer } = await context.host.open(plan.current);
    const pairsFile = `${this.#folder}/${rule.trains === "future" ? "pairs-future" : "pairs"}.jsonl`;
    const { pairs, texts, picked, ...formed } = await formPairs({
      strategy: plan.strategy.name,
      iteration: this.#number,
      rule,
      phase,
      pools,
      tokenizer,
      now: context.now,
      selection: context.settings.selection,
      file: join(plan.runFolder, pairsFile),
      note: (text) => noteFinding(context, text),
    });
    const { judge } = plan;
    const gap = { judge, tasks: this.tasks, pairs: texts, picked, position: this.#position };
    const measured = await measuredGap(context, gap);
    const name = `${rule.trains === "future" ? "F" : "M"}${this.#number}`;
    const start = this.#modelOf(rule.startsFrom);
    const trained = await this.#train(start, pairs, { name, phase, temporary: rule.trains === "future" });
    if (rule.trains === "future") this.#future = trained.model;
    else this.#next = trained.model;
    return {
      phase,
      name: rule.name,
      start: start.name,
      trained: name,
      pairsFile,
      pairs: pairs.list.length,
      ...formed,
      ...measured,
      cosine: trained.cosine,
      training: trained.training,
    };
  }

  /** The model that the training starts from is its reference. */
  async #train(
    model: ModelRef,
    pairs: FormedPairs["pairs"],
    plan: { name: string; phase: number; temporary: boolean },
  ) {
    const { name, phase } = plan;
    const { context } = this;
    const position = this.#position;
    const cosine = await pairCosinesStage(context, { model, pairs, position });
    const reference = await referenceStage(context, { model, pairs, position });
    this.#charge("reference", `pairs of phase ${phase}`, reference.totals);
    const trained = await preferenceStage(context, { ...plan, start: model, pairs, reference, position });
    this.#charge("train", name, trained.totals);
    return { ...trained, cosine };
  }

  #charge(stage: LedgerEntry["stage"], label: string, totals: LedgerTotals): void {
    this.#ledger.push({ iteration: this.#number, stage, label, ...totals });
  }
}

async function* candidateRows(pools: readonly Pool[]) {
  for (const pool of pools) {
    for await (const candidates of pool.byTask()) yield* candidates.map(({ row }) => row);
  }
}

async function* judgementRows(pools: readonly Pool[]) {
  for (const pool of pools) yield* pool.judgements();
}
