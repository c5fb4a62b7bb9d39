import { rm } from "node:fs/promises";
import type { Engine } from "@tempora/engine";
import type { Loggers } from "@tempora/logging";
import { saveCheckpoint } from "@tempora/models";
import { JsonlLog } from "@tempora/text";
import type { Metrics, TrainingSummary } from "@tempora/training";
import type { TrainedAdapter } from "../adapter.ts";
import type { Context } from "../context.ts";
import { formatCount } from "../format.ts";
import { figuresOf, withLoggers } from "../log-to.ts";
import type { OpenModel } from "../model.ts";
import type { StageProgress } from "../progress.ts";

/** What sft and dpo share: the bar, the metrics file and the checkpoint at the end. */
export class TrainingRun {
  #stage: StageProgress | null = null;
  #last: Metrics | null = null;

  private constructor(
    private readonly label: string,
    private readonly steps: number,
    private readonly metrics: JsonlLog<Metrics> | null,
    private readonly loggers: Loggers | null,
    private readonly context: Context,
  ) {}

  static async begin(
    label: string,
    { rows, batchPairs, epochs }: { rows: number; batchPairs: number; epochs: number },
    { metricsFile, loggers }: { metricsFile: string | null; loggers: Loggers | null },
    context: Context,
  ): Promise<TrainingRun> {
    const steps = Math.ceil(rows / batchPairs) * epochs;
    return new TrainingRun(label, steps, await newLog(metricsFile), loggers, context);
  }

  /** Shows the bar; called when the first step begins. */
  start(): void {
    this.#stage ??= this.context.progress.stage(this.label, this.steps, "steps");
  }

  readonly onMetrics = async (row: Metrics): Promise<void> => {
    this.start();
    this.#last = row;
    const margin = row["rewards/margins"];
    const shown = [`loss ${row.loss.toFixed(4)}`];
    if (margin !== undefined) shown.push(`margin ${margin.toFixed(3)}`);
    shown.push(`grad ${row.grad_norm.toFixed(2)}`, `${formatCount(row.num_tokens)} tokens`);
    this.#stage?.update(row.step, shown.join(" · "));
    this.loggers?.step("", figuresOf({ ...row }));
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
    const { checkpoint } = model;
    if (adapter !== null) await adapter.save(engine, out);
    else
      await saveCheckpoint(out, {
        config: checkpoint.config,
        raw: checkpoint.raw,
        dtype: engine.dtype,
        tensors: engine.tensors(),
        companion: checkpoint.companion,
        endTokens: await model.endTokens(),
      });
    const last = this.#last;
    const tokens = formatCount(summary.tokens);
    this.context.result(
      { out, steps: summary.steps, tokens: summary.tokens, skipped, last, device: engine.device, dtype: engine.dtype },
      `Trained ${summary.steps} ${summary.steps === 1 ? "step" : "steps"}, ${tokens} tokens with shared ones counted once${last ? `, last loss ${last.loss.toFixed(4)}` : ""}: ${out}`,
    );
  }

  /** Trains, and closes metrics and loggers however that ended: they stay as they are, the steps that were taken. */
  async during(work: () => Promise<void>): Promise<void> {
    try {
      await withLoggers(this.loggers, this.context.signal, work);
    } finally {
      await this.metrics?.close();
    }
  }
}

/** Metrics are a log: they can be followed while the training goes on. One of an earlier training is replaced. */
async function newLog(file: string | null): Promise<JsonlLog<Metrics> | null> {
  if (file === null) return null;
  await rm(file, { force: true });
  return JsonlLog.open<Metrics>(file);
}
