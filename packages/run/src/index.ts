export * from "./estimate/memory.ts";
export type { Speed } from "./estimate/speed.ts";
export * from "./estimate/step-time.ts";
export { type Calibration, CalibrationRows, type KnownPair, knownPairs } from "./judges/calibration.ts";
export {
  hashResponses,
  type Judge,
  JudgeCollapsed,
  type JudgedRows,
  type Judgement,
  judgementColumns,
  type Response,
  readJudgements,
} from "./judges/judge.ts";
export { type JudgeChoice, makeJudge } from "./judges/make-judge.ts";
export type { JudgeModel } from "./judges/sampled.ts";
export { type Verdicts, verdictsOf } from "./judges/verdicts.ts";
export { type DryRun, type DryRunOptions, dryRun } from "./loop/dry-run.ts";
export { type LoopOptions, type RunOutcome, runLoop } from "./loop/loop.ts";
export type { LoadedModel } from "./models/model-host.ts";
export { numericsOf } from "./models/numerics.ts";
export * from "./results/ledger.ts";
export { type LiveStage, type LiveState, liveFileName } from "./results/live-file.ts";
export * from "./results/observer.ts";
export { type PairColumns, type PairSide, pairColumns } from "./results/pair-columns.ts";
export * from "./results/results.ts";
export { type Sampled, type SamplingOptions, type SamplingRequest, sample } from "./sampling/sampling.ts";
export * from "./settings/config.ts";
export {
  type ConfiguredFunction,
  type JudgeBatch,
  type JudgeFunction,
  type JudgeKind,
  type JudgeScores,
  type JudgeSettings,
  judgeKinds,
} from "./settings/judge-settings.ts";
export { judgeTemplateFile, storedTemplate, templateOf } from "./settings/judge-template.ts";
export { paperSettings, type Settings, settingsSchema } from "./settings/settings.ts";
export { asConversation, judgePromptIds, type SampledText, textGivesIds } from "./sources/conversation.ts";
export type { Example, Start, Task, TaskSource } from "./sources/source.ts";
export { worldSettings } from "./sources/world.ts";
export { TrainingState } from "./stages/training-state.ts";
export { codeVersion } from "./store/code-version.ts";
export { ContentHash } from "./store/content-hash.ts";
export { type Cleaned, cleanStore, type StoredStage, storeInventory, storeOf } from "./store/inventory.ts";
export * from "./store/locks.ts";
export { RowLog, sealedRows } from "./store/row-log.ts";
export * from "./store/store.ts";
export { type StudyOptions, type StudyOutcome, studyRows, studySeeds } from "./study.ts";
