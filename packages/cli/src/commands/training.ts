import { rm } from "node:fs/promises";
import { type Engine, oneAtATime } from "@tempora/engine";
import type { Loggers } from "@tempora/logging";
import { saveCheckpoint } from "@tempora/models";
import type { TrainingState } from "@tempora/run";
import { JsonlLog } from "@tempora/text";
import type { Metrics, TrainingSummary } from "@tempora/training";
import type { TrainedAdapter } from "../adapter.ts";
import type { Context } from "../context.ts";
import { formatCount, formatCounted } from "../format.ts";
import { figuresOf, withLoggers } from "../log-to.ts";
import type { OpenModel } from "../model.ts";
import type { StageProgress } from "../progress.ts";

/** What sft and dpo share: the bar, the metrics file and the checkpoint at the end. */
export class TrainingRun {
  /** From here on steps are computed. */
  readonly #began = performance.now();
  #stage: StageProgress | null = null;
  #last: Metrics | null = null;

  private constructor(
    private readonly label: string,
    private readonly steps: number,
    private readonly metrics: JsonlLog<Metrics> | null,
    private readonly kept: { loggers: Loggers | null; state: TrainingState },
    private readonly context: Context,
  ) {}

  static async begin(
    label: string,
    { rows, batchPairs, epochs }: { rows: number; batchPairs: number; epochs: number },
    { metricsFile, loggers, state }: { metricsFile: string | null; loggers: Loggers | null; state: TrainingState },
    context: Context,
  ): Promise<TrainingRun> {
    const steps = Math.ceil(rows / batchPairs) * epochs;
    const log = await newLog(metricsFile, state.metrics);
    return new TrainingRun(label, steps, log, { loggers, state }, context);
  }

  readonly onMetrics = async (row: Metrics): Promise<void> => {
    this.#stage ??= this.context.progress.stage(this.label, this.steps, "steps", this.#began);
    this.#last = row;
    const margin = row["rewards/margins"];
    const shown = [`loss ${row.loss.toFixed(4)}`];
    if (margin !== undefined) shown.push(`margin ${margin.toFixed(3)}`);
    shown.push(`grad ${row.grad_norm.toFixed(2)}`, `${formatCount(row.num_tokens)} tokens`);
    this.#stage?.update(row.step, shown.join(" · "));
    this.kept.loggers?.step("", figuresOf({ ...row }));
    await this.kept.state.log.add(row);
    await this.metrics?.append([row]);
  };

  /** Saves the trained model, or the adapter that was trained over it, and reports. */
  async finish(
    model: OpenModel,
    engine: Engine,
    summary: TrainingSummary,
    { out, skipped, adapter }: { out: string; skipped: number; adapter: TrainedAdapter | null },
  ): Promise<void> {
    this.#stage?.finish();
    // Gradients and moments are done with: tensors on their way to the files need not lie beside them.
    await engine.resetOptimizer();
    await saveTrained(model, engine, out, adapter);
    const last = this.#last;
    const tokens = formatCount(summary.tokens);
    this.context.result(
      { out, steps: summary.steps, tokens: summary.tokens, skipped, last, device: engine.device, dtype: engine.dtype },
      `Trained ${formatCounted(summary.steps, "step")}, ${tokens} tokens with shared ones counted once${last ? `, last loss ${last.loss.toFixed(4)}` : ""}: ${out}`,
    );
  }

  /** Trains, and closes metrics and loggers however that ended: they stay as they are, the steps that were taken. */
  async during(work: () => Promise<void>): Promise<void> {
    try {
      await withLoggers(this.kept.loggers, this.context.signal, work);
    } finally {
      await this.metrics?.close();
    }
  }
}

/** Writes the model, or the adapter that is trained over it, as it is now. */
export async function saveTrained(
  model: OpenModel,
  engine: Engine,
  folder: string,
  adapter: TrainedAdapter | null,
): Promise<void> {
  if (adapter !== null) return adapter.save(engine, folder);
  const { config, raw, companion } = model.checkpoint;
  const { dtype } = engine;
  await saveCheckpoint(folder, {
    ...{ config, raw, dtype, companion },
    tensors: oneAtATime(engine.tensors()),
    endTokens: await model.endTokens(),
  });
}

/**
 * Metrics are a log: they can be followed while the training goes on. One of an earlier training is replaced, by the steps of this
 * one that an earlier process did.
 */
async function newLog(file: string | null, earlier: readonly Metrics[]): Promise<JsonlLog<Metrics> | null> {
  if (file === null) return null;
  await rm(file, { force: true });
  const log = await JsonlLog.open<Metrics>(file);
  if (earlier.length > 0) await log.append([...earlier]);
  return log;
}
