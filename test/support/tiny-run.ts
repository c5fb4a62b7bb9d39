import type { TemporaConfig } from "@tempora/run";

/** The default run made as small as it can be while its judge still writes scores. */
export const tinyConfig = {
  iterations: 1,
  promptsPerIteration: 32,
  candidates: 4,
  judge: {
    judgements: 2,
    retries: 1,
    // What is tried here is the way, not the judge: so short a training leaves a poor one.
    limits: { minJudgements: 1_000_000, maxFailureRate: 1 },
  },
  start: {
    demonstrations: 3200,
    gradedExamples: 3200,
    training: { learningRate: 4e-3, warmupSteps: 5, batchPairs: 32 },
  },
  training: { batchPairs: 8 },
  replay: { perStep: 8 },
  evaluation: { prompts: 24, judgements: 1 },
} satisfies TemporaConfig;
