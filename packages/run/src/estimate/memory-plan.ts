import type { AdapterConfig, DType, ModelConfig } from "@tempora/engine";
import { openAdapter } from "@tempora/models";
import type { Settings } from "../settings/settings.ts";
import type { MemoryPlan } from "./memory.ts";

/** What the loop's trainings change instead of the whole model. */
export async function plannedAdapter({ adapter, lora }: Settings): Promise<AdapterConfig | null> {
  if (adapter !== null) return (await openAdapter(adapter)).config;
  return lora === null ? null : { ...lora, alpha: lora.alpha ?? 2 * lora.rank };
}

export interface PlannedModel {
  config: ModelConfig;
  dtype: DType;
  adapter: AdapterConfig | null;
}

/** Of the loop's trainings. */
export function memoryPlan({ engine }: Settings, { config, dtype, adapter }: PlannedModel): MemoryPlan {
  return { config, dtype, adapter, quantize: engine.quantize ?? undefined, moments: engine.moments };
}
