export { type Aggregation, aggregate } from "./aggregate.ts";
export {
  auditJudgements,
  type Collapse,
  type CollapseLimits,
  collapsed,
  defaultCollapseLimits,
  type JudgementAudit,
  type JudgementRow,
} from "./audit.ts";
export { checkJudgeTemplate, defaultJudgeTemplate, type JudgeTemplate, judgePrompt } from "./judge-prompt.ts";
export { type ParsedScore, type ParseOptions, parseScore, type ScoreFailure } from "./parse-score.ts";
export {
  type DropReason,
  type Judged,
  type PairSelection,
  type Pools,
  type SelectedPair,
  type Selection,
  type SelectionSettings,
  selectPair,
  selectPairs,
} from "./select-pair.ts";
export {
  cosine,
  type Interval,
  interval95,
  mean,
  pairedDifference,
  spearman,
  type WinRate,
  winRate,
} from "./statistics.ts";
export {
  type PhaseRule,
  type Role,
  rolesOf,
  type SideRule,
  type Strategy,
  type StrategyName,
  strategies,
} from "./strategies.ts";
