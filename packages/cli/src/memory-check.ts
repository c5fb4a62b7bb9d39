import type { AdapterConfig, DType, Quantization } from "@tempora/engine";
import type { Checkpoint } from "@tempora/models";
import {
  computesOnCpu,
  lighterTrainings,
  type MemoryEstimate,
  type MemoryPlan,
  machineMemory,
  requireMemory,
  trainingMemory,
} from "@tempora/run";
import type { ForestSize } from "@tempora/training";
import { formatBytes } from "./format.ts";
import type { OpenModel } from "./model.ts";
import { type EngineFlags, momentsOf, type OptimizerFlags } from "./options.ts";

/** The flags that decide how much memory a training takes. */
export interface MemoryFlags extends OptimizerFlags {
  dtype?: DType;
  quantize?: Quantization;
  loraRank?: number;
  loraTargets?: AdapterConfig["targets"];
  maxTokens: number;
  gradientCheckpointing: boolean;
}

export function memoryPlan(
  { config, dtype, blockBytes }: Pick<Checkpoint, "config" | "dtype" | "blockBytes">,
  flags: MemoryFlags,
): MemoryPlan {
  const { loraRank: rank, loraTargets: targets } = flags;
  return {
    config,
    dtype: flags.dtype ?? dtype,
    readAs: dtype,
    quantize: flags.quantize,
    blockBytes,
    moments: momentsOf(flags),
    adapter: rank === undefined ? null : { rank, alpha: 2 * rank, targets },
  };
}

/**
 * Refuses a training that this machine cannot hold, before its weights are read, and tells what one takes that it can.
 * `forest`: the largest that is trained on; `adapter`: that of an adapter which is trained on.
 */
export function requireTrainingMemory(
  { checkpoint }: OpenModel,
  flags: MemoryFlags & Pick<EngineFlags, "device">,
  { forest, adapter }: { forest: ForestSize; adapter: AdapterConfig | undefined },
  note: (text: string) => void,
): void {
  const own = memoryPlan(checkpoint, flags);
  const plan = { ...own, adapter: adapter ?? own.adapter, resident: process.memoryUsage().rss };
  const step = { ...forest, checkpointing: flags.gradientCheckpointing };
  const needed = trainingMemory(plan, step);
  const onCpu = computesOnCpu(flags.device);
  if (onCpu) requireMemory("The training", needed, machineMemory(), lighterTrainings(plan, step));
  const machine = onCpu ? `; the machine has ${formatBytes(machineMemory())}` : "";
  note(`Memory: about ${describeMemory(needed)}${machine}.`);
}

/** "2.5 GiB: weights 0.5, gradients 1, …" */
export function describeMemory(memory: MemoryEstimate): string {
  const { total, ...parts } = memory;
  const shown = Object.entries(parts)
    .filter(([, bytes]) => bytes > 0)
    .map(([name, bytes]) => `${name} ${formatBytes(bytes)}`);
  return `${formatBytes(total)}: ${shown.join(", ")}`;
}
