import {
  type AdapterConfig,
  adapterModules,
  adapterTensors,
  type DType,
  type ModelConfig,
  parameterShapes,
} from "@tempora/engine";
import { type JudgeTemplate, pastIndex, rolesOf, type StrategyName, strategyVariant } from "@tempora/preferences";
import { addTotals, countParameters, noTokens, trainingPasses } from "../results/ledger.ts";
import type { LedgerTotals } from "../results/results.ts";
import type { Settings } from "../settings/settings.ts";
import type { RowLengths } from "./run-memory.ts";
import type { Speed } from "./speed.ts";
import { type Generated, StageWork, type TaskLengths } from "./work.ts";

/** The kind of a judge that reads answers with weights of ours, and its question. */
export interface JudgeQuestion {
  kind: "sampled" | "expected";
  template: JudgeTemplate;
}

/** Everything that decides what a run computes, without its weights. */
export interface PlanInput {
  settings: Settings;
  config: ModelConfig;
  dtype: DType;
  /** What the loop trains; null: the whole model. */
  adapter: AdapterConfig | null;
  speed: Speed;
  /** Null where no model of ours judges. */
  judge: JudgeQuestion | null;
  tokenizer: Parameters<StageWork["expected"]>[1]["tokenizer"];
  /** Whether a program grades answers: then no model judges the held-out ones. */
  graded: boolean;
  training(iteration: number): readonly TaskLengths[];
  heldOut: readonly TaskLengths[];
  /** Mean tokens of a replayed row; 0: none are replayed. */
  replayTokens: number;
  /** What M0 is trained on first, in one epoch. */
  start: RowLengths["start"];
}

export type EstimatedKind = "start" | "generate" | "judge" | "reference" | "train" | "evaluate";

/** What the stages of one kind take together. */
export interface EstimatedStage {
  /** Null: what all strategies share. */
  strategy: StrategyName | null;
  kind: EstimatedKind;
  totals: LedgerTotals;
  seconds: number;
}

export interface RunPlan {
  stages: EstimatedStage[];
  /** Iterations of each strategy. */
  iterations: { strategy: StrategyName; count: number; totals: LedgerTotals }[];
  /** Whole models that the run keeps. */
  models: number;
  /** LoRA adapters that it keeps. */
  adapters: number;
  /** Rows that the run keeps: answers, judgements, pairs. */
  rows: number;
  seconds: number;
}

/** Of the adapter, or of the whole model. */
export function trainedParameters(config: ModelConfig, adapter: AdapterConfig | null): number {
  return countParameters(adapter === null ? parameterShapes(config) : adapterTensors(adapterModules(adapter, config)));
}

/** Counts a whole run from its settings; see `StageWork` for what is counted at its longest. */
export function planRun(input: PlanInput): RunPlan {
  return new Planner(input).plan();
}

class Planner {
  readonly #work: StageWork;
  readonly #stages: EstimatedStage[] = [];
  /** Pools that are in the store already when another strategy asks for them: they are charged but take no time. */
  readonly #computed = new Set<string>();
  #models = 0;
  #adapters = 0;
  #rows = 0;

  constructor(readonly input: PlanInput) {
    this.#work = new StageWork(input.config);
  }

  plan(): RunPlan {
    const { settings, start } = this.input;
    if (start.rows > 0) this.#start();
    this.#evaluation(null, "M0");
    const iterations: RunPlan["iterations"] = [];
    let target: number | null = null;
    for (const strategy of [settings.strategy, ...settings.baselines]) {
      let totals = noTokens();
      let count = 0;
      let last = 0;
      while (this.#goesOn({ count, last, flops: totals.flops, target })) {
        const own = this.#iteration(strategy, count);
        last = own.flops;
        totals = addTotals(totals, own);
        count++;
        this.#evaluation(strategy, `${strategy}/M${count}`);
      }
      target ??= totals.flops;
      iterations.push({ strategy, count, totals });
    }
    const seconds = this.#stages.reduce((sum, stage) => sum + stage.seconds, 0);
    return {
      stages: this.#stages,
      iterations,
      models: this.#models,
      adapters: this.#adapters,
      rows: this.#rows,
      seconds,
    };
  }

  /** As the loop decides it. */
  #goesOn(done: { count: number; last: number; flops: number; target: number | null }): boolean {
    const { iterations, maxBaselineIterations } = this.input.settings;
    if (done.target === null) return done.count < iterations;
    if (done.count === 0) return true;
    return done.count < maxBaselineIterations && done.flops + done.last / 2 < done.target;
  }

  #start(): void {
    const { start, settings } = this.input;
    const { epochs, gradientCheckpointing: checkpointing, batchPairs } = settings.start.training;
    const whole = settings.model === null || settings.lora?.start === "full";
    const adapter = whole ? null : this.input.adapter;
    const tokens = start.tokens * epochs;
    const totals = {
      ...noTokens(),
      trainedTokens: tokens,
      flops: trainingPasses({ checkpointing, frozen: adapter !== null }) * this.#work.rows(tokens),
    };
    if (adapter === null) this.#models++;
    else this.#adapters++;
    const steps = Math.ceil(start.rows / batchPairs) * epochs;
    this.#add(null, "start", totals, this.#trainingSeconds(totals, steps, adapter));
  }

  #iteration(strategy: StrategyName, index: number): LedgerTotals {
    const { settings } = this.input;
    const rules = strategyVariant(strategy, settings);
    const tasks = this.input.training(index);
    const nameOf = (number: number) => (number === 0 ? "M0" : `${strategy}/M${number}`);
    const made = new Set<string>();
    let totals = noTokens();
    const pool = (role: "past" | "current" | "future") => {
      const names = {
        past: nameOf(pastIndex(rules.past, index)),
        current: nameOf(index),
        future: `${strategy}/F${index + 1}`,
      };
      if (made.has(names[role])) return;
      made.add(names[role]);
      totals = addTotals(totals, this.#pool(strategy, { tasks, index, name: names[role], judge: nameOf(index) }));
    };
    pool("current");
    for (const phase of rules.phases) {
      for (const role of rolesOf(phase)) pool(role);
      totals = addTotals(totals, this.#phase(strategy, tasks));
    }
    return totals;
  }

  #pool(
    strategy: StrategyName,
    { tasks, index, name, judge }: { tasks: readonly TaskLengths[]; index: number; name: string; judge: string },
  ): LedgerTotals {
    const { candidates, judge: settings } = this.input.settings;
    const key = `${index}:${name}:${judge}`;
    const again = this.#computed.has(key);
    this.#computed.add(key);
    const answers = this.#generated(this.#work.answers(tasks, candidates));
    const judged = this.#judged(tasks, candidates, settings.judgements);
    this.#rows += again ? 0 : tasks.length * candidates * (1 + settings.judgements);
    this.#add(strategy, "generate", answers.totals, again ? 0 : answers.seconds);
    this.#add(strategy, "judge", judged.totals, again ? 0 : judged.seconds);
    return addTotals(answers.totals, judged.totals);
  }

  /** Pairs of all prompts: their cosines and gap, which no ledger counts, the reference, and the training. */
  #phase(strategy: StrategyName, tasks: readonly TaskLengths[]): LedgerTotals {
    const { settings, replayTokens, speed } = this.input;
    const { epochs, gradientCheckpointing: checkpointing, batchPairs } = settings.training;
    const steps = Math.ceil(tasks.length / batchPairs) * epochs;
    const reference = this.#work.scoredPairs(tasks);
    const replayedTokens = Math.ceil(steps * settings.replay.perStep * replayTokens);
    const { adapter } = this.input;
    const passes = trainingPasses({ checkpointing, frozen: adapter !== null });
    const trained = this.#work.trainedPairs(tasks, { epochs, passes, replayedTokens });
    if (adapter === null) this.#models++;
    else this.#adapters++;
    this.#rows += tasks.length;
    this.#add(strategy, "evaluate", reference, reference.flops / speed.forward);
    this.#add(strategy, "reference", reference, reference.flops / speed.forward);
    this.#add(strategy, "train", trained, this.#trainingSeconds(trained, steps, adapter));
    if (settings.judge.heldBack > 0) this.#addJudged(strategy, tasks, 2, settings.judge.heldBack);
    return addTotals(reference, trained);
  }

  /** A model's answers to the held-out prompts and its judgements of M0's, and of its own where a program can tell how good. */
  #evaluation(strategy: StrategyName | null, model: string): void {
    const { settings, heldOut, graded } = this.input;
    const { judgedPrompts, judgements } = settings.evaluation;
    const own = this.#generated(this.#work.answers(heldOut, 1));
    this.#rows += heldOut.length;
    this.#add(strategy, "evaluate", own.totals, own.seconds);
    const judged = heldOut.slice(0, judgedPrompts);
    this.#addJudged(strategy, judged, model === "M0" || !graded ? 1 : 2, judgements);
    if (!graded) this.#addJudged(strategy, heldOut, 1, judgements);
  }

  #addJudged(
    strategy: StrategyName | null,
    tasks: readonly TaskLengths[],
    responses: number,
    judgements: number,
  ): void {
    const { totals, seconds } = this.#judged(tasks, responses, judgements);
    this.#rows += tasks.length * responses * judgements;
    this.#add(strategy, "evaluate", totals, seconds);
  }

  #judged(
    tasks: readonly TaskLengths[],
    responses: number,
    judgements: number,
  ): { totals: LedgerTotals; seconds: number } {
    const { judge, settings, tokenizer, speed } = this.input;
    if (judge === null) return { totals: noTokens(), seconds: 0 };
    if (judge.kind === "sampled") {
      const tokens = settings.judge.sampling.maxNewTokens;
      return this.#generated(this.#work.sampled(tasks, { responses, judgements, tokens }));
    }
    const { maxTokens } = settings.training;
    const totals = this.#work.expected(tasks, { responses, template: judge.template, tokenizer, maxTokens });
    return { totals, seconds: totals.flops / speed.forward };
  }

  #generated({ read, decoded }: Generated): { totals: LedgerTotals; seconds: number } {
    const { forward, decoding } = this.input.speed;
    return { totals: addTotals(read, decoded), seconds: read.flops / forward + decoded.flops / decoding };
  }

  #trainingSeconds({ flops }: LedgerTotals, steps: number, adapter: AdapterConfig | null): number {
    const { speed, config } = this.input;
    const parameters = trainedParameters(config, adapter);
    return flops / speed.training + steps * parameters * speed.optimizerSecondsPerParameter;
  }

  #add(strategy: StrategyName | null, kind: EstimatedKind, totals: LedgerTotals, seconds: number): void {
    const known = this.#stages.find((stage) => stage.strategy === strategy && stage.kind === kind);
    if (known === undefined) {
      this.#stages.push({ strategy, kind, totals, seconds });
      return;
    }
    known.totals = addTotals(known.totals, totals);
    known.seconds += seconds;
  }
}
