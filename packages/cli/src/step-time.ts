import type { AdapterConfig } from "@tempora/engine";
import { forestWork, forwardFlops, measureTraining, stepSeconds } from "@tempora/run";
import { type ForestSize, largestForest, type PackItem } from "@tempora/training";
import type { Context } from "./context.ts";
import { formatCounted, formatDuration } from "./format.ts";
import { type MemoryFlags, memoryPlan } from "./memory-check.ts";
import type { OpenModel } from "./model.ts";
import type { EngineFlags, TrainingFlags } from "./options.ts";

type Flags = MemoryFlags & Pick<EngineFlags, "device" | "threads"> & TrainingFlags;

/** A training's forests, before anything of it is computed. */
export interface PlannedSteps {
  /** The largest of them. */
  forest: ForestSize;
  steps: number;
  /** FLOPs of a forward pass over the rows of a step, in the mean. */
  forwardFlops: number;
  items: readonly PackItem[];
}

/** Packs all rows as the training will. */
export function plannedSteps({ checkpoint }: OpenModel, items: readonly PackItem[], flags: Flags): PlannedSteps {
  const { config } = checkpoint;
  let flops = 0;
  const forest = largestForest(items, flags, config.maxPositions, (one) => {
    flops += forwardFlops(config, forestWork(config, one));
  });
  const epoch = Math.ceil(items.length / flags.batchPairs);
  const packed = epoch * (flags.shuffle ? flags.epochs : 1);
  return { forest, steps: epoch * flags.epochs, forwardFlops: flops / packed, items };
}

const mean = (values: readonly number[]) => Math.ceil(values.reduce((sum, value) => sum + value, 0) / values.length);

/**
 * Tells what the steps that are left will take, by a few with weights of the model's widths: before the model itself is read.
 * `scored`: whether a reference scores all rows first.
 */
export async function tellStepTime(
  { checkpoint }: OpenModel,
  flags: Flags,
  planned: PlannedSteps & { adapter: AdapterConfig | undefined; done: number; scored: boolean },
  context: Context,
): Promise<void> {
  const { forest, items, adapter, done, scored } = planned;
  const left = planned.steps - done;
  if (left <= 0 || items.length === 0) return;
  const own = memoryPlan(checkpoint, flags);
  const model = { ...own, adapter: adapter ?? own.adapter, checkpointing: flags.gradientCheckpointing };
  const prompt = mean(items.map((item) => item.promptIds.length));
  const completions = (items[0] as PackItem).completions.map((_, k) =>
    mean(items.map((item) => item.completions[k]?.length ?? 0)),
  );
  const rows = Math.ceil(forest.tokens / completions.reduce((sum, length) => sum + length, prompt));
  const { device, threads } = flags;
  const speed = await measureTraining(model, { device, threads }, { prompt, completions, rows });
  const step = stepSeconds(model, speed, planned.forwardFlops);
  const reference = scored ? ((planned.steps / flags.epochs) * planned.forwardFlops) / speed.flopsPerSecond : 0;
  const which = done > 0 ? `the ${formatCounted(left, "step")} left` : formatCounted(left, "step");
  context.progress.note(
    `Time: about ${formatDuration(step)} a step; ${which}${scored ? " and the reference" : ""} ${formatDuration(left * step + reference)}.`,
  );
}
