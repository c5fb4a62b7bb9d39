export { type Aggregation, aggregate } from "./aggregate.ts";
export {
  type AuditedResponse,
  auditJudgements,
  type Collapse,
  type CollapseLimits,
  collapsed,
  defaultCollapseLimits,
  histogramScores,
  type JudgementAudit,
  RunningAudit,
  rubricScale,
  type ScoreScale,
  scoreOf,
  type Verdict,
} from "./audit.ts";
export { type AnswerPath, type ExpectedScore, expectedScore } from "./expected-score.ts";
export {
  answersOf,
  checkJudgeTemplate,
  type JudgeAnswer,
  type JudgePromptPart,
  type JudgeTemplate,
  judgePrompt,
  judgePromptParts,
  spellings,
} from "./judge-prompt.ts";
export { defaultJudgeTemplate, judgeTemplates, secondYesNoTemplate, yesNoTemplate } from "./judge-templates.ts";
export { lengthControlledWinRate } from "./length-control.ts";
export { type ParsedScore, type ParseOptions, parseScore, type ScoreFailure } from "./parse-score.ts";
export {
  type DropReason,
  dropReasons,
  type Judged,
  manyTruncated,
  noSelection,
  type Pools,
  type Scored,
  type SelectedPair,
  type Selection,
  type SelectionCounts,
  type SelectionSettings,
  selectPair,
  selectPairs,
  truncationWarning,
} from "./select-pair.ts";
export { disarmSpecialTokens } from "./special-tokens.ts";
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
  type Past,
  type PhaseRule,
  pastIndex,
  type Role,
  rolesOf,
  type SideRule,
  type Strategy,
  type StrategyName,
  type StrategyVariant,
  strategies,
  strategyNames,
  strategyVariant,
  trainsFuture,
} from "./strategies.ts";
