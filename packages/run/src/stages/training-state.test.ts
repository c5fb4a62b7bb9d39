import { mkdir, mkdtemp, readdir, readFile, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Engine, type EngineOptions } from "@tempora/engine";
import { openCheckpoint } from "@tempora/models";
import { oracle } from "@tempora/testing";
import { readAllRows } from "@tempora/text";
import type { Metrics } from "@tempora/training";
import { trainPreferences } from "@tempora/training";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { noTokens } from "../results/ledger.ts";
import { TrainingState } from "./training-state.ts";

let folder: string;
let notes: string[];
const note = (text: string) => notes.push(text);
beforeEach(async () => {
  notes = [];
  folder = await mkdtemp(join(tmpdir(), "tempora-state-"));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

/** Trains on the oracle's pairs, shuffled, with replay; stops with an error after `stopAfter` steps. */
async function train(
  stopAfter: number,
  onStep: (step: number) => unknown = () => undefined,
  through: { adapter?: boolean; engine?: EngineOptions } = {},
): Promise<{ weights: Buffer; metrics: Metrics[] }> {
  const rows = await readAllRows(oracle("llama", "logprobs.jsonl"));
  const pairs = rows.map(({ value }) => ({
    promptIds: value.prompt_ids as number[],
    chosenIds: value.chosen_ids as number[],
    rejectedIds: value.rejected_ids as number[],
  }));
  const replay = pairs.slice(0, 5).map(({ promptIds, chosenIds }) => ({ promptIds, completionIds: chosenIds }));
  const options = { device: "cpu" as const, ...through.engine };
  using engine = await Engine.load(await openCheckpoint(oracle("llama", "policy")), options);
  const { adapters } = engine;
  if (through.adapter === true) {
    await adapters.add("trained", { rank: 4, alpha: 8, dropout: 0.1 }, { seed: 5 });
    await adapters.activate("trained");
  }
  await using state = await TrainingState.open(folder, 0, note);
  const metrics = [...state.metrics];
  await trainPreferences({
    engine,
    rows: pairs.map((pair) => ({ ...pair, reference: { chosen: -100, rejected: -100 } })),
    options: {
      learningRate: 1e-3,
      scheduler: "cosine",
      warmupSteps: 1,
      weightDecay: 0.01,
      maxGradNorm: 1,
      batchPairs: 4,
      maxTokens: 2000,
      epochs: 2,
      shuffle: true,
      seed: 3,
      loss: { terms: [{ type: "sigmoid", weight: 1 }], beta: 0.1 },
      replay: { rows: replay, perStep: 2, weight: 0.5 },
    },
    resume: state.resume(engine),
    onMetrics: async (row) => {
      metrics.push(row);
      await state.log.add(row);
    },
    onStep: async (progress) => {
      await onStep(progress.step);
      await state.afterStep(engine, progress, noTokens());
      if (progress.step === stopAfter) throw new Error("stopped");
    },
  });
  const parts: Uint8Array[] = [];
  const trained = adapters.active === null ? engine.tensors() : adapters.tensors(adapters.active);
  for await (const { bytes } of trained) parts.push(bytes);
  return { weights: Buffer.concat(parts), metrics };
}

describe("TrainingState", () => {
  it("lets an interrupted training end with the bytes of one that was not", async () => {
    const whole = await train(0);
    for (const name of await readdir(folder)) await rm(join(folder, name));
    await expect(train(2)).rejects.toThrow("stopped");
    await expect(train(9)).rejects.toThrow("stopped");
    expect((await readdir(folder)).sort()).toEqual(["metrics.jsonl", "state-9.safetensors", "state.json"]);
    expect(JSON.parse(await readFile(join(folder, "state.json"), "utf8")).result.progress).toEqual({
      step: 9,
      seen: expect.any(Number),
      computed: expect.any(Number),
    });
    const resumed = await train(0);
    expect(resumed.metrics).toEqual(whole.metrics);
    expect(resumed.weights.equals(whole.weights)).toBe(true);
  });

  const kinds = [
    ["an adapter", { adapter: true }],
    ["an adapter over bf16", { adapter: true, engine: { dtype: "bf16" } }],
    [
      "an adapter over four-bit weights, moments in 8 bits",
      { adapter: true, engine: { quantize: "nf4", moments: "8bit" } },
    ],
    ["moments in bf16", { engine: { moments: "bf16" } }],
    ["moments in 8 bits", { engine: { moments: "8bit" } }],
  ] as const;
  it.each(kinds)("does so for %s", async (_, through) => {
    const nothing = () => undefined;
    const whole = await train(0, nothing, through);
    for (const name of await readdir(folder)) await rm(join(folder, name));
    await expect(train(7, nothing, through)).rejects.toThrow("stopped");
    const resumed = await train(0, nothing, through);
    expect(resumed.metrics).toEqual(whole.metrics);
    expect(resumed.weights.equals(whole.weights)).toBe(true);
  });

  it("goes on with a warning when a state cannot be written, from the last one that was", async () => {
    const whole = await train(0);
    for (const name of await readdir(folder)) await rm(join(folder, name));
    // A folder where the file would be: written it cannot be, whoever asks.
    const block = (step: number) =>
      mkdir(join(folder, `state-${step}.safetensors.partial`, "full"), { recursive: true });
    const unblock = (step: number) => rm(join(folder, `state-${step}.safetensors.partial`), { recursive: true });
    await expect(
      train(4, async (step) => {
        if (step === 3) await block(3);
        if (step === 4) {
          await unblock(3);
          await block(4);
        }
      }),
    ).rejects.toThrow("stopped");
    expect(notes.length).toBe(2);
    expect(notes[1]).toMatch(/Cannot write.*state-4.*The training goes on; killed, it would start again from step 2/s);
    await unblock(4);
    expect((await readdir(folder)).sort()).toEqual(["metrics.jsonl", "state-2.safetensors", "state.json"]);
    const resumed = await train(0);
    expect(resumed.metrics).toEqual(whole.metrics);
    expect(resumed.weights.equals(whole.weights)).toBe(true);
  });

  it("removes what attempts that were killed while they saved have left, and all of it in the end", async () => {
    await expect(train(2)).rejects.toThrow("stopped");
    const left = ["state-1.safetensors", "state-3.safetensors", "state-4.safetensors.partial", "state.json.partial"];
    for (const name of left) await writeFile(join(folder, name), "torn");
    await (await TrainingState.open(folder, 0, note))[Symbol.asyncDispose]();
    expect((await readdir(folder)).sort()).toEqual(["metrics.jsonl", "state-2.safetensors", "state.json"]);
    await TrainingState.remove(folder);
    expect(await readdir(folder)).toEqual(["metrics.jsonl"]);
  });

  it("goes on from no state of which a byte has changed", async () => {
    await expect(train(3)).rejects.toThrow("stopped");
    for (const name of ["state.json", "state-3.safetensors"]) {
      const file = join(folder, name);
      const bytes = await readFile(file);
      for (const at of [0.3, 0.6, 0.9].map((share) => Math.floor(share * bytes.length))) {
        const changed = Buffer.from(bytes);
        (changed[at] as number) ^= 1;
        await writeFile(file, changed);
        await expect(train(0)).rejects.toThrow(/The training's state is not what was saved \(.*state/);
      }
      await writeFile(file, bytes);
    }
  });

  it("starts again where the metrics of its steps were lost", async () => {
    await expect(train(2)).rejects.toThrow("stopped");
    await truncate(join(folder, "metrics.jsonl"), 10);
    await using state = await TrainingState.open(folder, 0, note);
    expect(state.metrics).toEqual([]);
    expect(state.totals).toBe(null);
  });
});
