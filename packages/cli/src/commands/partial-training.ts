import { join } from "node:path";
import type { Engine } from "@tempora/engine";
import type { Json } from "@tempora/errors";
import { noTokens, numericsOf, RowLog, TrainingState } from "@tempora/run";
import type { ReferenceSums, TrainingHooks, TrainingProgress } from "@tempora/training";
import type { TrainedAdapter } from "../adapter.ts";
import type { Context } from "../context.ts";
import type { OpenModel } from "../model.ts";
import { modelIdentity } from "../model-identity.ts";
import { type EngineFlags, momentsOf, type OptimizerFlags, type TrainingFlags, trainingOptions } from "../options.ts";
import { PartialWork } from "../partial-work.ts";
import { saveTrained } from "./training.ts";

export interface PartialPlan {
  command: "sft" | "dpo";
  model: OpenModel;
  adapter: TrainedAdapter | null;
  /** Where the trained model goes in the end. */
  out: string;
  /** What else decides the result: rows, loss, reference. */
  inputs: Record<string, Json>;
}

type Flags = EngineFlags & OptimizerFlags & TrainingFlags;

/**
 * A training of a command that can be killed: <out>.work holds the state that the same command goes on from, to the bytes of a
 * training that was never interrupted.
 */
export class PartialTraining implements AsyncDisposable {
  private constructor(
    private readonly work: PartialWork,
    readonly state: TrainingState,
    private readonly plan: PartialPlan,
    private readonly flags: Flags,
  ) {}

  static async open(plan: PartialPlan, flags: Flags, context: Context): Promise<PartialTraining> {
    const work = await PartialWork.open(`${plan.out}.work`, context);
    try {
      await work.begin(await identityOf(plan, flags));
      const note = (text: string) => context.progress.note(text);
      const state = await TrainingState.open(work.folder, flags.saveStateSeconds, note);
      const { length } = state.metrics;
      if (length > 0) note(`Going on behind step ${length}, which an earlier process has saved.`);
      return new PartialTraining(work, state, plan, flags);
    } catch (error) {
      await work[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** For the training of what the engine holds. */
  hooks(engine: Engine): Required<Pick<TrainingHooks, "onStep" | "signal">> & Pick<TrainingHooks, "resume"> {
    return {
      signal: this.work.signal,
      resume: this.state.resume(engine),
      onStep: (progress) => this.#afterStep(engine, progress),
    };
  }

  /** Reference log-probs of pairs, by their index: those that were scored before are not scored again. */
  async references(
    pairs: number,
    score: (onSums: (pair: number, sums: ReferenceSums) => Promise<void>) => Promise<unknown>,
  ): Promise<ReferenceSums[]> {
    const all = new Array<ReferenceSums>(pairs);
    type Row = ReferenceSums & { pair: number };
    const log = await RowLog.open<Row>(this.work.folder, "references", {
      place: ({ pair }) => pair,
      onEarlier: ({ pair, chosen, rejected }) => {
        all[pair] = { chosen, rejected };
      },
    });
    try {
      if (log.count < pairs) {
        await score(async (pair, sums) => {
          all[pair] = sums;
          await log.add({ pair, ...sums });
        });
      }
    } finally {
      await log.close();
    }
    return all;
  }

  /** The trained model is saved: what led to it goes. */
  async done(): Promise<void> {
    await this.state[Symbol.asyncDispose]();
    await this.work.done();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.state[Symbol.asyncDispose]();
    await this.work[Symbol.asyncDispose]();
  }

  async #afterStep(engine: Engine, progress: TrainingProgress): Promise<void> {
    await this.state.afterStep(engine, progress, noTokens());
    const { saveSteps } = this.flags;
    if (saveSteps === undefined || progress.step % saveSteps !== 0) return;
    const { model, adapter, out } = this.plan;
    await saveTrained(model, engine, join(`${out}-checkpoints`, `checkpoint-${progress.step}`), adapter);
  }
}

async function identityOf(plan: PartialPlan, flags: Flags): Promise<Record<string, Json>> {
  const { command, model, adapter, inputs } = plan;
  const { device, dtype, threads, quantize } = flags;
  return {
    ...inputs,
    command,
    model: await modelIdentity(model.checkpoint, adapter?.folder ?? null),
    adapter: adapter === null ? null : (adapter.config as unknown as Json),
    options: trainingOptions(flags) as unknown as Json,
    moments: momentsOf(flags),
    numerics: numericsOf({ device, dtype: dtype ?? null, threads, quantize: quantize ?? null }),
  };
}
