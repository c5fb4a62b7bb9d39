export {
  type AdapterConfig,
  type AdapterModule,
  type AdapterSource,
  adapterModules,
  adapterTensors,
} from "./adapter-config.ts";
export type { Adapters } from "./adapters.ts";
export type { NativeDeviceInfo as DeviceInfo } from "./addon.ts";
export type { PreferencePair } from "./check.ts";
export { Engine } from "./engine.ts";
export * from "./engine-types.ts";
export { type Forest, ForestBuilder, nodeCount, rootCount } from "./forest.ts";
export type {
  Completion,
  GenerationLeaf,
  GenerationOptions,
  GenerationProgress,
  GenerationPrompt,
} from "./generate.ts";
export { type BatchOptions, type BatchRequest, type BatchToken, GenerationBatch } from "./generation-batch.ts";
export { giveBack, oneAtATime } from "./give-back.ts";
export { couplesPairs, type LossType, lossTypes, type PreferenceLoss } from "./losses.ts";
export * from "./model.ts";
export { callRoundTrip, deviceInfo } from "./native.ts";
export { type PreferenceLossResult, type PreferenceSums, preferenceLoss } from "./preference-loss.ts";
export type { Snapshot } from "./snapshot.ts";
