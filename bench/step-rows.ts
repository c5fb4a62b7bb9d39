import { measureTrl } from "./peers/peers.ts";
import { own, say } from "./process.ts";
import type { BenchRow } from "./row.ts";
import {
  adapterTraining,
  type Ceilings,
  llama135M,
  optimizerBytes,
  preferenceStepFlops,
  wholeModel,
} from "./shapes.ts";
import { loraRank, type StepMeasurement, type StepVariant, stepShape, stepVariants } from "./step.ts";

const names: Record<StepVariant, string> = {
  whole: "Tempora bf16, cached reference",
  lora: `LoRA of rank ${loraRank} on all linear modules, base in bf16`,
  nf4: `LoRA of rank ${loraRank} on all linear modules, base in NF4`,
  checkpointed: `LoRA of rank ${loraRank} on all linear modules, base in bf16, checkpointed`,
};

function stepRow(variant: StepVariant, mine: StepMeasurement, ceilings: Ceilings): BenchRow {
  const trained = variant === "whole" ? wholeModel : adapterTraining(llama135M, loraRank);
  const floor = preferenceStepFlops(llama135M, stepShape, trained) / ceilings.flops;
  const second = floor + optimizerBytes(llama135M, trained) / ceilings.bandwidth;
  return {
    name: names[variant],
    value: mine.stepSeconds,
    unit: "s",
    floor,
    ratio: floor / mine.stepSeconds,
    secondFloor: { counts: "AdamW, norm and zeroing", floor: second, ratio: second / mine.stepSeconds },
    note: remark(mine),
  };
}

function remark(measured: StepMeasurement): string {
  return `${measured.pairsPerSecond.toFixed(2)} pairs/s, peak ${(measured.peakBytes / 1e9).toFixed(2)} GB`;
}

/** The DPO step of the whole model and of adapters, each in a process of its own, and TRL's. */
export async function stepRows(ceilings: Ceilings, peers: boolean): Promise<BenchRow[]> {
  const rows: BenchRow[] = [];
  for (const variant of stepVariants) {
    say(`measuring the DPO step: ${names[variant]}`);
    for (const mine of await own<StepMeasurement>("step.ts", [variant])) rows.push(stepRow(variant, mine, ceilings));
  }
  const whole = rows[0]?.value ?? Number.NaN;
  for (const cached of peers ? [false, true] : []) {
    say(`measuring TRL with a ${cached ? "cached" : "live"} reference`);
    const trl = await measureTrl(cached);
    const times = trl.stepSeconds / whole;
    rows.push({
      name: `TRL bf16, ${cached ? "cached" : "live"} reference`,
      value: trl.stepSeconds,
      unit: "s",
      note: `${remark(trl)}; Tempora is ${times.toFixed(2)} times as fast`,
    });
  }
  return rows;
}
