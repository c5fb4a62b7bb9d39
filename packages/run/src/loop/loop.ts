import { dirname, join } from "node:path";
import type { Json } from "@tempora/errors";
import { pastIndex, type StrategyName, strategyVariant } from "@tempora/preferences";
import { freeBytes, requireRunDisk } from "../estimate/disk.ts";
import { tellRunOutlook } from "../estimate/run-outlook.ts";
import { locateModels } from "../models/locate-models.ts";
import { ModelHost } from "../models/model-host.ts";
import type { ModelRef } from "../models/model-ref.ts";
import { numericsOf } from "../models/numerics.ts";
import { bestModel, fallen } from "../results/best-model.ts";
import { EventLog } from "../results/event-log.ts";
import { addTotals, noTokens } from "../results/ledger.ts";
import { LiveFile } from "../results/live-file.ts";
import { ForwardingObserver, type Observer, silentObserver } from "../results/observer.ts";
import type { LedgerTotals, ModelResult, RunResult, StrategyResult } from "../results/results.ts";
import type { ParsedConfig } from "../settings/config.ts";
import type { Settings } from "../settings/settings.ts";
import { fileSource } from "../sources/files.ts";
import { worldSource } from "../sources/world.ts";
import type { RunContext } from "../stages/context.ts";
import { givenModel } from "../stages/given-model.ts";
import { startModel } from "../stages/start.ts";
import { StrategyEnded } from "../stages/strategy-ended.ts";
import { unpackedFolder } from "../stages/unpack.ts";
import { codeVersion } from "../store/code-version.ts";
import { storeOf } from "../store/inventory.ts";
import { lockFolder } from "../store/locks.ts";
import { Store } from "../store/store.ts";
import { runIdentity } from "../store/users.ts";
import { evaluateModel } from "./evaluate.ts";
import { fittingSource } from "./fitting-source.ts";
import { runIteration } from "./iteration.ts";
import { placeModel, prepareRunFolder, type RunChoices, startedOn, writeRun } from "./run-folder.ts";

export interface LoopOptions extends RunChoices {
  config: ParsedConfig;
  observer?: Observer;
  signal?: AbortSignal | undefined;
  /** Part of every stage's key; default: the hash of the sources. Equal code must have equal versions. */
  codeVersion?: string;
}

export interface RunOutcome {
  folder: string;
  result: RunResult;
  /** Stages of this call: how many were computed and how many were in the store. */
  stages: { computed: number; reused: number };
}

/**
 * The whole run: M0, the strategy, its baselines at equal compute, the evaluation of every model, the run folder. Running
 * again goes on where an interrupted run stopped. Throws a TemporaError for bad input, a folder in use, or a judge of no use;
 * an AbortError when the signal stopped it, with everything finished so far kept.
 */
export async function runLoop(options: LoopOptions): Promise<RunOutcome> {
  const { run, runs, settings } = options.config;
  const folder = join(runs, run);
  const lost = new AbortController();
  const lock = await lockFolder(folder, "The run", (reason) => lost.abort(reason));
  try {
    const signal = options.signal === undefined ? lost.signal : AbortSignal.any([options.signal, lost.signal]);
    const code = options.codeVersion ?? (await codeVersion());
    const recorded = JSON.parse(JSON.stringify(settings)) as Record<string, Json>;
    const keptCode = await prepareRunFolder(folder, { codeVersion: code, settings: recorded }, options);
    const user = { run: folder, identity: runIdentity(code, recorded) };
    const store = new Store(storeOf(runs), code, { user, keptCode, onLost: (reason) => lost.abort(reason) });
    using observer = new LiveFile(folder, options.observer ?? silentObserver);
    if (keptCode.length > 0) observer.note(keptText(keptCode));
    return await new Run(folder, { store, keptCode, recorded }, settings, observer, signal).run();
  } finally {
    await lock.release();
  }
}

function keptText(keptCode: readonly string[]): string {
  const versions = keptCode.map((code) => code.slice(0, 12)).join(", ");
  return `Stages that earlier code (${versions}) has begun are kept: this run's results are not those of one version of the code.`;
}

/** What the run's folder and the store say of it. */
interface Kept {
  store: Store;
  /** Earlier versions of the code whose stages are used. */
  keptCode: readonly string[];
  /** The settings, as JSON. */
  recorded: Record<string, Json>;
}

interface StrategyPlan {
  first: ModelRef;
  external: ModelRef | null;
  name: StrategyName;
  strategy: StrategyResult;
  /** The compute to match, or null for the run's own strategy. */
  target: LedgerTotals | null;
  save(): Promise<void>;
}

class Run {
  constructor(
    readonly folder: string,
    readonly kept: Kept,
    readonly settings: Settings,
    readonly watcher: Observer,
    readonly signal: AbortSignal,
  ) {}

  async run(): Promise<RunOutcome> {
    const { folder, watcher } = this;
    const observer = new CountingObserver(watcher);
    const { store, keptCode, recorded } = this.kept;
    const settings = await locateModels(this.settings, watcher, this.signal);
    const source =
      settings.model === null ? worldSource(settings) : await fileSource(settings, (text) => observer.note(text));
    await tellRunOutlook(settings, source, observer);
    const runs = dirname(store.folder);
    await requireRunDisk(settings, source, { runs, free: await freeBytes(runs) });
    using host = new ModelHost(settings.engine, this.signal);
    using events = new EventLog(folder, observer);
    const context: RunContext = {
      settings,
      source,
      store,
      host,
      observer,
      events,
      signal: this.signal,
      keptCode,
      numerics: numericsOf(settings.engine),
      now: await startedOn(folder, settings.date),
    };
    const { model: first, result: start } = await startModel(context);
    const loaded = await host.use(first);
    const result: RunResult = {
      format: 2,
      status: "running",
      codeVersion: store.codeVersion,
      ...(keptCode.length > 0 ? { keptCode: [...keptCode] } : {}),
      settings: recorded,
      device: { device: loaded.engine.device, name: loaded.engine.deviceName, dtype: loaded.engine.dtype },
      graded: source.trueScore !== null,
      start,
      strategies: [],
    };
    await placeModel(first, join(folder, "models", first.name));
    if (first.base !== null) await placeModel(first.base, join(folder, "models", "base"));
    const external = await externalJudge(context);
    const fitting = await fittingSource(context, first, external ?? first);
    if (fitting.leftOut !== null) result.leftOut = fitting.leftOut;
    try {
      await this.#strategies({ ...context, source: fitting.source }, { first, external }, result);
    } catch (error) {
      if (error instanceof StrategyEnded) await this.#failed(result, error);
      throw error;
    }
    result.status = "finished";
    await writeRun(folder, result);
    return { folder, result, stages: observer.stages };
  }

  /** What led to the end is to be seen: a judge that collapsed, say, by its audits. */
  async #failed(result: RunResult, { message }: StrategyEnded): Promise<void> {
    const last = result.strategies.at(-1);
    if (last !== undefined) last.stopped = message;
    await writeRun(this.folder, { ...result, status: "failed", failure: message });
  }

  async #strategies(
    context: RunContext,
    { first, external }: Pick<StrategyPlan, "first" | "external">,
    result: RunResult,
  ): Promise<void> {
    const { folder } = this;
    const { settings } = context;
    const base = await evaluateModel(context, {
      model: first,
      first,
      referee: external ?? first,
      runFolder: folder,
      strategyFolder: "",
      mustJudge: external === null,
      position: { strategy: null, iteration: 0 },
    });
    let target: LedgerTotals | null = null;
    for (const name of [settings.strategy, ...settings.baselines]) {
      const strategy: StrategyResult = {
        name,
        folder: target === null ? "" : `${name}/`,
        matches: target === null ? null : settings.strategy,
        iterations: [],
        models: [base],
        best: base.model,
        totals: noTokens(),
      };
      result.strategies.push(strategy);
      await this.#strategy(context, { first, external, name, strategy, target, save: () => writeRun(folder, result) });
      target ??= strategy.totals;
    }
  }

  async #strategy(context: RunContext, plan: StrategyPlan): Promise<void> {
    const models = [plan.first];
    while (this.#goesOn(plan.strategy, plan.target)) {
      try {
        models.push(await this.#iteration(context, plan, models));
      } catch (error) {
        // The run is about its first strategy. That a baseline cannot go on is a finding of the comparison.
        if (!(error instanceof StrategyEnded) || plan.target === null) throw error;
        plan.strategy.stopped = error.message;
        context.observer.note(`${plan.name} ends here: ${error.message}`);
        return;
      }
      const worse = fallen(plan.strategy.models, this.settings.stopWhenWorse);
      if (worse !== null) plan.strategy.stopped = worse;
      await plan.save();
      if (worse !== null) return context.observer.note(`${plan.name} ends here: ${worse}`);
    }
  }

  /** One iteration of the last of the models, with its evaluation; returns the next model. */
  async #iteration(context: RunContext, plan: StrategyPlan, models: readonly ModelRef[]): Promise<ModelRef> {
    const { first, external, strategy } = plan;
    const index = models.length - 1;
    const current = models[index] as ModelRef;
    const rules = strategyVariant(plan.name, context.settings);
    const { next, result } = await runIteration(context, {
      strategy: rules,
      index,
      current,
      past: models[pastIndex(rules.past, index)] as ModelRef,
      judge: external ?? (this.settings.judge.role === "frozen" ? first : current),
      runFolder: this.folder,
      strategyFolder: strategy.folder,
    });
    await placeModel(next, join(this.folder, strategy.folder, "models", next.name));
    strategy.iterations.push(result);
    strategy.totals = result.ledger.reduce(addTotals, strategy.totals);
    strategy.models.push(await this.#evaluate(context, next, plan));
    strategy.best = bestModel(strategy.models)?.model ?? next.name;
    context.observer.evaluated(this.folder, strategy);
    return next;
  }

  #evaluate(context: RunContext, model: ModelRef, plan: StrategyPlan): Promise<ModelResult> {
    return evaluateModel(context, {
      model,
      first: plan.first,
      referee: plan.external ?? plan.first,
      runFolder: this.folder,
      strategyFolder: plan.strategy.folder,
      // What a later judge is worth is a finding of the run; the loop itself stops when its judgements are of no use.
      mustJudge: false,
      position: { strategy: plan.strategy.name, iteration: plan.strategy.iterations.length },
    });
  }

  /**
   * A baseline goes on until its compute comes nearest to the target: another iteration is taken for as expensive as the
   * last one, and must bring the sum closer.
   */
  #goesOn(strategy: StrategyResult, target: LedgerTotals | null): boolean {
    const done = strategy.iterations.length;
    if (target === null) return done < this.settings.iterations;
    const last = strategy.iterations[done - 1];
    if (last === undefined) return true;
    if (done >= this.settings.maxBaselineIterations) return false;
    const cost = last.ledger.reduce(addTotals, noTokens()).flops;
    return strategy.totals.flops + cost / 2 < target.flops;
  }
}

/** Counts what was computed and what was in the store. */
class CountingObserver extends ForwardingObserver {
  readonly stages = { computed: 0, reused: 0 };

  override finish(id: string, outcome: { reused: boolean; seconds: number }): void {
    if (outcome.reused) this.stages.reused++;
    else this.stages.computed++;
    super.finish(id, outcome);
  }
}

async function externalJudge(context: RunContext): Promise<ModelRef | null> {
  const { role, model } = context.settings.judge;
  if (role !== "external" || model === null) return null;
  return givenModel(context, "judge", await unpackedFolder(context, model));
}
