import { createHash } from "node:crypto";
import { readdir, readFile } from "node:fs/promises";
import { join, relative } from "node:path";
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
      demonstrations: 2400,
      gradedExamples: 2400,
      training: { ...world.start.training, batchPairs: 32, warmupSteps: 10, maxTokens: 2048 },
    },
    evaluation: { ...world.evaluation, prompts: 24, judgedPrompts: 16, judgements: 2 },
  };
}

/** Hash of every artifact by its path. The log of durations is none, nor is what a lock leaves while it is held. */
export async function artifacts(folder: string): Promise<Record<string, string>> {
  const names = await readdir(folder, { recursive: true, withFileTypes: true });
  const files = names.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
  const hashes: Record<string, string> = {};
  for (const file of files.sort()) {
    const name = relative(folder, file);
    if (name === "timings.log" || name.startsWith(".lock")) continue;
    hashes[name] = createHash("sha256")
      .update(await readFile(file))
      .digest("hex");
  }
  return hashes;
}
