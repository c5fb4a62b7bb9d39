import { readFile } from "node:fs/promises";
import { Engine } from "@tempora/engine";
import { openCheckpoint } from "@tempora/models";
import { oracle } from "@tempora/testing";
import { readAllRows } from "@tempora/text";
import { describe, expect, it } from "vitest";
import type { Metrics } from "./metrics.ts";
import { type PairIds, type PreferenceTraining, pairItem, trainPreferences } from "./preference-training.ts";
import { scoreRows } from "./scoring.ts";
import type { TrainingOptions } from "./training-options.ts";

interface Trajectory {
  config: Record<string, number> & { lr_scheduler_type: "linear" };
  sigmoid: { steps: Metrics[]; logps_after_training: [number, number][] };
  ipo: { steps: Metrics[]; logps_after_training: [number, number][] };
}

async function readTrajectory(family: string) {
  const trajectory = JSON.parse(await readFile(oracle(family, "trl_trajectory.json"), "utf8")) as Trajectory;
  const rows = await readAllRows(oracle(family, "logprobs.jsonl"));
  const pairs = rows.map(
    ({ value, row }): PairIds => ({
      promptIds: value.prompt_ids as number[],
      chosenIds: value.chosen_ids as number[],
      rejectedIds: value.rejected_ids as number[],
      where: { row },
    }),
  );
  return { trajectory, pairs };
}

function optionsOf({ config }: Trajectory): TrainingOptions {
  return {
    learningRate: config.learning_rate as number,
    scheduler: config.lr_scheduler_type,
    warmupSteps: config.warmup_steps as number,
    weightDecay: config.weight_decay as number,
    maxGradNorm: config.max_grad_norm as number,
    batchPairs: (config.per_device_train_batch_size as number) * (config.gradient_accumulation_steps as number),
    // Small enough that a step takes several micro-batches.
    maxTokens: 250,
    epochs: config.num_train_epochs as number,
    shuffle: false,
    seed: 0,
    betas: [config.adam_beta1 as number, config.adam_beta2 as number],
    epsilon: config.adam_epsilon as number,
  };
}

/** Tolerances of test/oracles/README.md: 2e-3 relative, absolute below 0.05. */
function expectClose(actual: number, expected: number, what: string): void {
  const tolerance = 2e-3 * Math.max(Math.abs(expected), 0.05);
  expect(Math.abs(actual - expected), `${what}: ${actual} for ${expected}`).toBeLessThanOrEqual(tolerance);
}

async function metricsOf(training: PreferenceTraining): Promise<Metrics[]> {
  const metrics: Metrics[] = [];
  await trainPreferences({
    ...training,
    onMetrics: (row) => {
      metrics.push(row);
    },
  });
  return metrics;
}

const families = ["llama", "llama3", "qwen2", "qwen3", "mistral"];

describe.each(families)("DPO on %s", (family) => {
  it.each(["sigmoid", "ipo"] as const)("follows TRL's DPOTrainer step by step with %s", async (type) => {
    const { trajectory, pairs } = await readTrajectory(family);
    const { beta } = trajectory.config;
    using engine = await Engine.load(await openCheckpoint(oracle(family, "reference")), { device: "cpu" });
    const metrics = await metricsOf({
      engine,
      rows: pairs,
      options: { ...optionsOf(trajectory), loss: { terms: [{ type, weight: 1 }], beta: beta as number } },
    });
    const { steps, logps_after_training: after } = trajectory[type];
    expect(metrics.length).toBe(steps.length);
    metrics.forEach((row, index) => {
      const expected = steps[index] as Metrics;
      const what = (name: string) => `${name} of step ${row.step}`;
      expectClose(row.loss, expected.loss, what("loss"));
      expect(row.num_tokens).toBe(expected.num_tokens);
      expect(row.epoch).toBeCloseTo(expected.epoch, 6);
      expect(row.learning_rate).toBeCloseTo(expected.learning_rate, 9);
      for (const name of ["logps/chosen", "logps/rejected"] as const) {
        expectClose(row[name] as number, expected[name] as number, what(name));
      }
      expect(row["rewards/accuracies"], what("accuracy")).toBe(expected["rewards/accuracies"]);
    });
    const scored = await scoreRows(engine, pairs.map(pairItem), { maxTokens: 2000 });
    scored.forEach((completions, index) => {
      completions.forEach(({ sum }, side) => {
        const expected = after[index]?.[side] as number;
        expect(Math.abs(sum - expected) / Math.abs(expected)).toBeLessThanOrEqual(2e-2);
      });
    });
  });
});

describe("A preference step", () => {
  it("does not depend on how its pairs are packed", async () => {
    const { trajectory, pairs } = await readTrajectory("llama");
    const run = async (maxTokens: number, type: "sigmoid" | "aot") => {
      using engine = await Engine.load(await openCheckpoint(oracle("llama", "reference")), { device: "cpu" });
      const options = { ...optionsOf(trajectory), batchPairs: 8, epochs: 1, maxTokens };
      const metrics = await metricsOf({
        engine,
        rows: pairs,
        options: { ...options, loss: { terms: [{ type, weight: 1 }], beta: 0.1 } },
      });
      return metrics;
    };
    for (const type of ["sigmoid", "aot"] as const) {
      const [small, large] = [await run(250, type), await run(100_000, type)];
      small.forEach((row, index) => {
        expectClose(row.loss, large[index]?.loss as number, `${type} loss of step ${row.step}`);
        expectClose(row.grad_norm, large[index]?.grad_norm as number, `${type} gradient norm of step ${row.step}`);
      });
    }
  });

  it("mixes replayed rows in, and leaves them out at weight 0", async () => {
    const { trajectory, pairs } = await readTrajectory("llama");
    const run = async (weight: number) => {
      using engine = await Engine.load(await openCheckpoint(oracle("llama", "reference")), { device: "cpu" });
      const rows = pairs.slice(0, 3).map(({ promptIds, chosenIds }) => ({ promptIds, completionIds: chosenIds }));
      const options = { ...optionsOf(trajectory), epochs: 1, warmupSteps: 0 };
      const metrics = await metricsOf({
        engine,
        rows: pairs.slice(0, 8),
        options: {
          ...options,
          loss: { terms: [{ type: "sigmoid", weight: 1 }], beta: 0.1 },
          replay: { rows, perStep: 2, weight },
        },
      });
      return metrics;
    };
    const [none, some] = [await run(0), await run(1)];
    expect(none.every((row) => row["tempora/replay_loss"] === undefined)).toBe(true);
    expect(some[1]?.["tempora/replay_loss"]).toBeLessThan(some[0]?.["tempora/replay_loss"] as number);
    expect(some[0]?.loss).toBeCloseTo(none[0]?.loss as number, 6);
    expect(some[0]?.grad_norm).not.toBeCloseTo(none[0]?.grad_norm as number, 3);
  });
});
