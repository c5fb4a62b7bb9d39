import { parameterShapes } from "@tempora/engine";
import {
  attendedPositions,
  computesOnCpu,
  countParameters,
  fitsMemory,
  forwardFlops,
  generationMemory,
  lighterTrainings,
  type MemoryEstimate,
  machineMemory,
  measureTraining,
  paperSettings,
  stepSeconds,
  trainingMemory,
} from "@tempora/run";
import type { Context } from "../context.ts";
import { formatBytes, formatCount, formatDuration } from "../format.ts";
import { describeMemory, type MemoryFlags, memoryPlan } from "../memory-check.ts";
import { openModel } from "../model.ts";
import type { EngineFlags } from "../options.ts";

export interface OutlookFlags extends EngineFlags, MemoryFlags {
  model?: string;
}

/** What a model would take on this machine. */
export interface Outlook {
  name: string;
  parameters: number;
  maxTokens: number;
  training: MemoryEstimate;
  trainingWithCheckpointing: MemoryEstimate;
  generation: MemoryEstimate;
  /** A step over maxTokens tokens, every one scored, and its optimizer step. */
  stepSeconds: number;
  available: number;
  /** Whether the training that the flags ask for fits; null on a GPU, whose memory is not looked at. */
  fits: boolean | null;
  /** Flags with which it would, where it does not; null: none that we know. */
  fitsWith: { change: string; memory: MemoryEstimate } | null;
}

const treeTokens = 512;

/** Null where no model is named. The weights are not read. */
export async function outlookOf(flags: OutlookFlags, context: Context): Promise<Outlook | null> {
  if (flags.model === undefined) return null;
  const { checkpoint, name } = await openModel(flags.model, context);
  const { config } = checkpoint;
  const { maxTokens: tokens, gradientCheckpointing } = flags;
  const plan = memoryPlan(checkpoint, flags);
  const onCpu = computesOnCpu(flags.device);
  const training = trainingMemory(plan, { tokens, checkpointing: false });
  const trainingWithCheckpointing = trainingMemory(plan, { tokens, checkpointing: true });
  const asked = gradientCheckpointing ? trainingWithCheckpointing : training;
  const available = machineMemory();
  const fits = onCpu ? fitsMemory(asked, available) : null;
  const lighter = lighterTrainings(plan, { tokens, checkpointing: gradientCheckpointing });
  const { maxRows: rows, maxCacheTokens: cacheTokens } = paperSettings.generation;
  return {
    name,
    parameters: countParameters(parameterShapes(config)),
    maxTokens: tokens,
    training,
    trainingWithCheckpointing,
    generation: generationMemory(plan, { rows, cacheTokens, device: onCpu ? "cpu" : "cuda" }),
    stepSeconds: await secondsOfStep(flags, plan),
    available,
    fits,
    fitsWith: fits === false ? (lighter.find(({ memory }) => fitsMemory(memory, available)) ?? null) : null,
  };
}

/** Trees of half a thousand tokens. */
async function secondsOfStep(flags: OutlookFlags, plan: ReturnType<typeof memoryPlan>) {
  const { device, threads, maxTokens, gradientCheckpointing: checkpointing } = flags;
  const { config } = plan;
  const length = Math.min(treeTokens, maxTokens, config.maxPositions);
  const model = { ...plan, checkpointing };
  const rows = { prompt: 1, completions: [length - 1], rows: Math.floor(maxTokens / length) };
  const speed = await measureTraining(model, { device, threads }, rows);
  const attended = (maxTokens / length) * attendedPositions(config, 0, length);
  return stepSeconds(model, speed, forwardFlops(config, { tokens: maxTokens, attended, headRows: maxTokens }));
}

export function describeOutlook(outlook: Outlook): string {
  const { name, parameters, maxTokens, available, fits, fitsWith } = outlook;
  const step = `${formatDuration(outlook.stepSeconds)} for ${maxTokens} tokens, all scored (measured with random weights)`;
  const lines: [string, string][] = [
    ["model", `${name}, ${formatCount(parameters)} parameters`],
    ["training", describeMemory(outlook.training)],
    ["  with --gradient-checkpointing", describeMemory(outlook.trainingWithCheckpointing)],
    ["generation", describeMemory(outlook.generation)],
    ["a training step", step],
  ];
  const shown = lines.map(([label, value]) => `${label.padEnd(32)}${value}`).join("\n");
  if (fits !== false) return shown;
  const remedy =
    fitsWith === null
      ? "Nothing that we know makes it fit."
      : `With ${fitsWith.change} it takes about ${formatBytes(fitsWith.memory.total)}.`;
  return `${shown}\n\nThis training does not fit into ${formatBytes(available)}. ${remedy}`;
}
