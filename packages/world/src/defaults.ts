/** A decoder's shape: the fields of the engine's ModelConfig that this world sets. */
export interface WorldModelConfig {
  family: "llama";
  vocabSize: number;
  hiddenSize: number;
  intermediateSize: number;
  layers: number;
  heads: number;
  kvHeads: number;
  headDim: number;
  normEps: number;
  tiedHead: boolean;
  qkvBias: boolean;
  outputBias: boolean;
  qkNorm: boolean;
  windows: number[];
  ropeTheta: number;
  ropeScaling: null;
  maxPositions: number;
}

/** Sizes and settings of the default run: the README of this package says how they were found. */
export const worldDefaults = {
  /** Chance that a demonstration is spoilt by at least one mistake, and of each further mistake. */
  corruption: { chance: 0.6, more: 0.12 },
  /** Demonstrations, and graded examples, of one prompt stand together: a forest holds their prompt once. */
  answersPerPrompt: 4,
  /** M0's supervised training: every step sees `batchDemonstrations` IFT and `batchGraded` EFT rows, each once. */
  sft: {
    steps: 2800,
    batchDemonstrations: 48,
    batchGraded: 24,
    learningRate: 2e-3,
    scheduler: "linear",
    warmupSteps: 20,
    weightDecay: 0,
    maxGradNorm: 1,
    /** Standard deviation of the initial weights. */
    initialDeviation: 0.08,
  },
  loop: {
    promptsPerIteration: 500,
    candidates: 7,
    judgements: 3,
    temperature: 1,
    /** Of judgements: what is compared is known or not, and at 1 what is known is sampled wrong now and then. */
    judgementTemperature: 0.3,
    topP: 1,
    maxAnswerTokens: 14,
    maxJudgementTokens: 50,
    iterations: { temporal: 2, selfRewarding: 5 },
    loss: "sigmoid",
    beta: 0.3,
    learningRate: 3e-4,
    scheduler: "linear",
    batchPairs: 16,
    epochs: 1,
    sftWeight: 2,
    /** Weight of graded examples learned again in each preference step, and how many a step. */
    replayWeight: 1,
    replayRows: 32,
  },
  evaluation: { prompts: 1200, samples: 1, judgedPrompts: 400 },
} as const;
