import type { Settings } from "../settings/settings.ts";
import { worldSettings } from "../sources/world.ts";

/** The default run at a size for tests: a model that barely judges, whose judgements are taken all the same. */
export function tinySettings(): Settings {
  const world = worldSettings();
  return {
    ...world,
    saveStateSeconds: 1,
    // A model so small is no work for more than one.
    engine: { ...world.engine, threads: 1 },
    promptsPerIteration: 16,
    candidates: 4,
    maxBaselineIterations: 8,
    judge: {
      ...world.judge,
      judgements: 2,
      limits: { minJudgements: 0, maxFailureRate: 1, minVariance: 0, maxEqualShare: 1, maxTieRate: 1 },
    },
    training: { ...world.training, batchPairs: 4, maxTokens: 512 },
    replay: { ...world.replay, perStep: 4 },
    start: {
      ...world.start,
      demonstrations: 960,
      gradedExamples: 960,
      training: { ...world.start.training, batchPairs: 32, warmupSteps: 10, maxTokens: 2048 },
    },
    evaluation: { ...world.evaluation, prompts: 24, judgedPrompts: 16, judgements: 2 },
  };
}
