/**
 * What a run folder holds, as types. All paths are relative to the run folder; nothing here depends on the clock, the
 * run's name or where it lies, so that the same settings give the same bytes. Wall-clock times are in `timings.log` only.
 *
 *     run.json                           RunResult
 *     started.json                       {date}: the day of the first start, which templates that ask for it are told
 *     events.jsonl                       EventRow, one a line, in the order in which a run without interruption writes them
 *     live.json                          LiveState, while the run goes on
 *     models/M0, models/M1, ...          checkpoints of the first strategy (M0 belongs to all)
 *     iterations/<n>/candidates.jsonl    CandidateRow
 *     iterations/<n>/judgements.jsonl    JudgementRow
 *     iterations/<n>/pairs-future.jsonl  PairRow of phase 1, which train the temporary future model (two-phase strategies)
 *     iterations/<n>/pairs.jsonl         PairRow that train the next model
 *     evaluation/<model>.jsonl           AnswerRow
 *     <strategy>/...                     the same for every further strategy
 */

import type { Interval, JudgementAudit, Role } from "@tempora/preferences";
import type { Conversation } from "@tempora/text";
import type { Metrics } from "@tempora/training";
import type { PairColumns } from "./pair-columns.ts";

/** A mean with its 95 % interval over `count` values; the ends are null below two values. */
export type Estimate = Interval;

/** past: M0, or the settings' other past model; current: the model of this iteration; future: trained from it in phase 1. */
export type PoolRole = Role;

/** One sampled answer. `id` is unique within its iteration. */
export interface CandidateRow {
  id: string;
  prompt_id: string;
  prompt: Conversation;
  tools?: unknown;
  chat_template_kwargs?: unknown;
  role: PoolRole;
  /** "M0", "M1", ... or "F1", "F2", ... for the future model of an iteration. */
  model: string;
  sample: number;
  text: string;
  /** What was sampled, the end token included where there was one; `text` is what it spells. */
  ids: number[];
  tokens: number;
  /** Summed log-prob of the new tokens under the sampling model, at temperature 1. */
  log_prob: number;
  finish_reason: "stop" | "length";
  /** Mean of the parsed judgements; null when none parsed. */
  score: number | null;
  /** Only where the tasks can be graded by a program. Never used in training. */
  true_score: number | null;
}

/** What files say of one judgement. */
export interface JudgementColumns {
  sample: number;
  /** 0, or the number of the retry after a judgement that did not parse. */
  attempt: number;
  /** What the judge said; empty where it says nothing. */
  text: string;
  score: number | null;
  failure: string | null;
  /** Of a judge of kind "expected": the template's answers' probabilities, and the share of all that lies on them. */
  probabilities?: readonly number[];
  mass?: number;
  /** Of a weighted sum: each part's own score. */
  parts?: Readonly<Record<string, number | null>>;
}

/** One judgement of a prompt's answer. Equal answers to a prompt are judged once. */
export interface JudgementRow extends JudgementColumns {
  prompt_id: string;
  /** The first candidate with this text. */
  candidate_id: string;
  /** Who judged: a model, a function, an endpoint's model. */
  judge: string;
}

/**
 * TRL's columns first: TRL trains on this file as it is, from the text. Tempora trains on the ids, which are what the
 * models read and wrote.
 */
export interface PairRow extends PairColumns {
  prompt_id: string;
  iteration: number;
  chosen_role: PoolRole;
  rejected_role: PoolRole;
  chosen_model: string;
  rejected_model: string;
  chosen_id: string;
  rejected_id: string;
  chosen_true_score: number | null;
  rejected_true_score: number | null;
}

/** One held-out answer of one model. */
export interface AnswerRow {
  prompt_id: string;
  prompt: Conversation;
  text: string;
  tokens: number;
  finish_reason: "stop" | "length";
  true_score: number | null;
  /** Score by the judge, as M0 or the external one where it is a model; where there is no true score. */
  judged_score: number | null;
  /** Of a judge that is a weighted sum: each part's own score. */
  judged_parts?: Record<string, number | null>;
}

/** Tokens and floating point operations of one stage. Formulas: ledger.ts. */
export interface LedgerEntry {
  iteration: number;
  stage: "generate" | "judge" | "reference" | "train";
  /** What for, e.g. "candidates of M1". */
  label: string;
  promptTokens: number;
  generatedTokens: number;
  judgedTokens: number;
  scoredTokens: number;
  trainedTokens: number;
  /** Read and written by a judge behind an endpoint: what its owner bills. No FLOPs of ours. */
  billedPromptTokens: number;
  billedTokens: number;
  flops: number;
}

export type LedgerTotals = Omit<LedgerEntry, "iteration" | "stage" | "label">;

/** How the judgements of one pool went. Counts every attempt, retries included. */
export interface JudgeAudit extends JudgementAudit {
  judge: string;
  /** Responses without one parsed judgement: left out of the pairs. */
  unscored: number;
  /**
   * Of a judge of kind "expected": mean share of the probability that lies on the template's answers. Near 0 it would say
   * something else altogether, and its score is read from a rest.
   */
  mass: number | null;
}

export interface TrainingResult {
  steps: number;
  tokens: number;
  first: Metrics;
  last: Metrics;
  /** Means over the last quarter of the steps. */
  finalLoss: number;
  finalMargin: number;
  finalAccuracy: number;
  /** Mean σ(−margin): near 0 the pairs teach nothing any more. */
  finalDpoWeight: number;
  finalGradNorm: number;
}

/** Which scores measure the gap of pairs. */
export type GapSource = "held-back judgements" | "a second wording" | "scores that picked the pair";

export interface PhaseResult {
  /** 1-based. */
  phase: number;
  /** What the phase selects, e.g. "anchored rejection". */
  name: string;
  start: string;
  /** The model that it trains: "F1" or "M1". */
  trained: string;
  pairsFile: string;
  pairs: number;
  /** Prompts without a pair, by reason ("tie", "no-scores", ...). */
  dropped: Record<string, number>;
  /** Answers in the pools that it reads. */
  answers: number;
  /** Those of them that were cut off by length: left out of the pairs, unless the settings keep them. */
  truncated: number;
  /** Pairs whose text does not give the ids again that they are trained on. */
  textDiffers: number;
  chosenRoles: Partial<Record<PoolRole, number>>;
  rejectedRoles: Partial<Record<PoolRole, number>>;
  /** Score of chosen minus score of rejected, by the judge: where it can, by judgements that did not pick the pairs. */
  scoreGap: Estimate;
  gapBy: GapSource;
  /** The same by the scores that picked the pairs, which overstate it. */
  pickedGap: Estimate;
  /** The same by the true score, where there is one. */
  trueGap: Estimate | null;
  /** Cosine similarity of the last-layer representations of chosen and rejected under the start model. */
  cosine: Estimate;
  chosenLength: number;
  rejectedLength: number;
  training: TrainingResult;
}

export interface IterationResult {
  /** 1-based: the folder's number. */
  iteration: number;
  prompts: number;
  start: string;
  next: string;
  candidatesFile: string;
  judgementsFile: string;
  phases: PhaseResult[];
  /** One for each judged pool, in order: current, past, future. */
  audits: (JudgeAudit & { role: PoolRole; model: string })[];
  ledger: LedgerEntry[];
}

/** A model as a judge, on one fixed set: M0's sampled answers to the held-out prompts. */
export interface JudgeQuality extends JudgeAudit {
  /** Rank correlation with the true score; null without one. */
  spearman: number | null;
  /** The same on the model's own held-out answers, which are ever more alike as it improves. */
  spearmanOwn: number | null;
}

export interface ModelResult {
  model: string;
  folder: string;
  answersFile: string;
  trueScore: Estimate | null;
  /** The true score, else the judge's: which model is best. */
  heldOutScore: Estimate;
  /** Of a judge that is a weighted sum: each part's own score of the held-out answers. */
  judgedParts: Record<string, Estimate>;
  /** Share of held-out prompts won against M0, a tie counting one half; null for M0. */
  winRate: Estimate | null;
  /** The same were the answers as long as M0's (see lengthControlledWinRate). */
  lengthControlledWinRate: Estimate | null;
  winRateBy: "true score" | "judge";
  /** Mean tokens of a held-out answer. */
  answerLength: number;
  /**
   * Mean −log-prob of a token of the held-out answers, in nats, under the model itself at temperature 1. Sampled at
   * temperature 1 with nothing cut off, its expectation is the mean token entropy; colder samples give less.
   */
  tokenEntropy?: number;
  judge: JudgeQuality;
}

export interface StrategyResult {
  name: string;
  /** "" for the run folder itself, else "<strategy>/". */
  folder: string;
  /** The strategy whose compute it was given, or null when its number of iterations was set. */
  matches: string | null;
  iterations: IterationResult[];
  /** M0 first, then the model after each iteration. */
  models: ModelResult[];
  /** The model with the highest held-out score. */
  best: string;
  totals: LedgerTotals;
  /** Why it ended early: its judge collapsed, there were no pairs left, or it fell (stopWhenWorse). */
  stopped?: string;
}

/** How M0 was made, when the run made it. */
export interface StartResult {
  /** "trained" by this run's supervised stage, or "given". */
  origin: "trained" | "given";
  checkpointHash: string;
  parameters: number;
  steps: number;
  tokens: number;
  flops: number;
  finalLoss: number | null;
}

export interface RunResult {
  format: 2;
  /** "failed": its first strategy cannot go on, as `failure` says; what was measured until then is here. */
  status: "running" | "finished" | "failed";
  failure?: string;
  /** Hash of the sources that decide the outputs. */
  codeVersion: string;
  /** Earlier versions whose stages the run was told to keep. */
  keptCode?: string[];
  /** The settings of the run, every default filled in. */
  settings: Record<string, unknown>;
  device: { device: string; name: string; dtype: string };
  /** Whether a program grades the answers. */
  graded: boolean;
  /** Absent where every prompt has room. */
  leftOut?: LeftOut;
  start: StartResult;
  strategies: StrategyResult[];
}

/** Prompts without room in the model's or the judge's context, which the run was told to leave out (skipTooLong). */
export interface LeftOut {
  /** Of training and held-out ones together. */
  prompts: number;
  first: { file?: string; row?: number; reason: string };
}

/** A line of events.jsonl. */
export type EventRow =
  | ({
      event: "step";
      strategy: string | null;
      iteration: number;
      phase: number;
      /** The model in training. */
      model: string;
    } & Metrics)
  | {
      event: "stage";
      strategy: string | null;
      iteration: number;
      kind: string;
      label: string;
      /** First 16 digits of the stage's key in the store. */
      key: string;
    };

/** A study over seeds: one value of every measure for each seed, and its mean. */
export interface StudyResult {
  format: 1;
  seeds: number[];
  /** Run folders, relative to the study's folder. */
  runs: string[];
  rows: {
    strategy: string;
    /** "M0", "M1", ..., or "last". */
    model: string;
    measure:
      | "true score"
      | "judged score"
      | "win rate"
      | "judge spearman"
      | "judge spearman, own answers"
      | "score gap"
      | "cosine"
      | "flops";
    values: number[];
    estimate: Estimate;
  }[];
}
