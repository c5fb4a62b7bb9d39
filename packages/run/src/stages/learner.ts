import type { AdapterConfig } from "@tempora/engine";
import { newAdapterConfigJson, openAdapter } from "@tempora/models";
import { baseOf, type ModelRef, type WholeModel } from "../models/model-ref.ts";
import type { Settings } from "../settings/settings.ts";

/** A LoRA adapter that a stage trains instead of the whole model. */
export interface Learner {
  config: AdapterConfig;
  /** The adapter_config.json to save it with. */
  raw: Record<string, unknown>;
  base: WholeModel;
}

/** What a training that starts from this model changes: the adapter that it is or that the settings ask for; null: the whole model. */
export async function learnerFrom(from: ModelRef, { lora, model, start }: Settings): Promise<Learner | null> {
  const base = baseOf(from);
  if (from.base !== null) {
    const { config, raw } = await openAdapter(from.folder);
    return { config, raw, base };
  }
  if (lora === null) return null;
  const { rank, alpha, rsLora, dropout, targets } = lora;
  const config: AdapterConfig = { rank, alpha: alpha ?? 2 * rank, rsLora, dropout, targets };
  // As the user named it, so that PEFT finds it; what the run trained whole lies beside the adapters in its folder.
  const trained = model === null || (lora.start === "full" && start.data.length > 0);
  return { config, raw: newAdapterConfigJson(config, trained ? "models/M0" : model), base };
}
