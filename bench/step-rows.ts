import { besideCeilings } from "./native-rows.ts";
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
    note: `${remark(mine)}; products at ${(ceilings.flops / 1e12).toFixed(3)} TFLOP/s beside it`,
  };
}

function remark(measured: StepMeasurement): string {
  return `${measured.pairsPerSecond.toFixed(2)} pairs/s, peak ${(measured.peakBytes / 1e9).toFixed(2)} GB`;
}

/** The DPO step of the whole model and of adapters, each in a process of its own, and TRL's. */
export async function stepRows(peers: boolean): Promise<BenchRow[]> {
  const rows: BenchRow[] = [];
  for (const variant of stepVariants) {
    say(`measuring the DPO step: ${names[variant]}`);
    const { measured, ceilings } = await besideCeilings(() => own<StepMeasurement>("step.ts", [variant]));
    for (const mine of measured) rows.push(stepRow(variant, mine, ceilings));
  }
  return peers ? [...rows, ...(await trlRows(rows))] : rows;
}

/** Each beside our step that trains the same. */
async function trlRows(own: readonly BenchRow[]): Promise<BenchRow[]> {
  const rows: BenchRow[] = [];
  for (const variant of ["whole", "lora"] as const) {
    const mine = own[stepVariants.indexOf(variant)] as BenchRow;
    for (const cachedReference of [false, true]) {
      const name = `TRL ${variant === "lora" ? "with PEFT, " : ""}bf16, ${cachedReference ? "cached" : "live"} reference`;
      say(`measuring ${name}`);
      const trl = await measureTrl({ cachedReference, loraRank: variant === "lora" ? loraRank : null });
      const times = (trl.stepSeconds / mine.value).toFixed(2);
      rows.push({ name, value: trl.stepSeconds, unit: "s", note: `${remark(trl)}; Tempora is ${times} times as fast` });
    }
  }
  return rows;
}
