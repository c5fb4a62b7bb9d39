import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Engine } from "@tempora/engine";
import { isAdapterFolder, openAdapter, openCheckpoint } from "@tempora/models";
import { readAllRows } from "@tempora/text";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { measuredWith } from "../estimate/step-time.ts";
import { ModelHost } from "../models/model-host.ts";
import { adaptedModel, baseOf, wholeModel } from "../models/model-ref.ts";
import { silentObserver } from "../results/observer.ts";
import type { RunResult } from "../results/results.ts";
import type { Settings } from "../settings/settings.ts";
import { worldSource } from "../sources/world.ts";
import { type Answer, answerStage, answersTogether } from "../stages/answer.ts";
import type { RunContext } from "../stages/context.ts";
import { Store } from "../store/store.ts";
import { type LoopOptions, runLoop as runTheLoop } from "./loop.ts";
import { artifacts, tinySettings } from "./tiny.ts";

let scratch: string;
beforeAll(async () => {
  scratch = await mkdtemp(join(tmpdir(), "tempora-adapters-"));
});
afterAll(() => rm(scratch, { recursive: true, force: true }));

const runLoop = (options: LoopOptions) => runTheLoop({ codeVersion: "test", ...options });

function adapterSettings(change: Partial<Settings> = {}): Settings {
  const settings = tinySettings();
  const lora = {
    rank: 4,
    alpha: null,
    rsLora: false,
    targets: "all-linear" as const,
    dropout: 0.1,
    start: "adapter" as const,
  };
  return { ...settings, baselines: [], lora, ...change };
}

describe("a run on adapters", () => {
  let folder: string;
  let result: RunResult;
  let reads: number[];

  beforeAll(async () => {
    const loaded = vi.spyOn(Engine, "load");
    const replaced = vi.spyOn(Engine.prototype, "setParameters");
    const config = { run: "run", runs: join(scratch, "first"), settings: adapterSettings() };
    ({ folder, result } = await runLoop({ config }));
    const checkpoints = loaded.mock.calls.filter(([{ name }]) => name !== measuredWith);
    reads = [checkpoints.length, replaced.mock.calls.length];
  }, 300_000);

  it("reads its base once, and keeps every later model as an adapter over it, as PEFT opens it", async () => {
    // Of the new model that becomes M0, and of the base.
    expect(reads).toEqual([2, 0]);
    expect(isAdapterFolder(join(folder, "models/M0"))).toBe(false);
    for (const name of ["M1", "M2"]) {
      const { config, base } = await openAdapter(join(folder, "models", name));
      expect(config).toMatchObject({ rank: 4, alpha: 8, dropout: 0.1 });
      expect(base).toBe("models/M0");
    }
    const [strategy] = result.strategies;
    expect(strategy?.models.map(({ model }) => model)).toEqual(["M0", "M1", "M2"]);
    const [first, second] = await Promise.all(
      ["M1", "M2"].map((name) => readFile(join(folder, "models", name, "adapter_model.safetensors"))),
    );
    expect(first?.equals(second as Buffer)).toBe(false);
  });

  it("counts a frozen base's training as two forward passes and not three", () => {
    const trained = result.strategies[0]?.iterations[0]?.ledger.filter(({ stage }) => stage === "train") ?? [];
    const whole = result.start.flops / result.start.tokens;
    for (const { flops, trainedTokens } of trained) expect(flops / trainedTokens / whole).toBeCloseTo(2 / 3, 1);
  });

  it("gives the answers of past and current model that each gives by itself, by one generation", async () => {
    const settings = adapterSettings();
    const base = await wholeModel("M0", join(folder, "models/M0"));
    const current = await adaptedModel("M1", join(folder, "models/M1"), baseOf(base));
    const source = worldSource(settings);
    using host = new ModelHost(settings.engine, undefined);
    const started = vi.spyOn(Engine.prototype, "generateForest");
    const rowsOf = async (
      store: string,
      ask: (context: RunContext) => Promise<{ byTask(): AsyncIterable<{ answers: Answer[] }> }[]>,
    ) => {
      const context = {
        ...{ settings, source, host, observer: silentObserver, numerics: null, now: new Date(0), signal: undefined },
        ...{ store: new Store(join(scratch, store), "test"), events: { append: () => {}, time: () => {} } },
      } as unknown as RunContext;
      started.mockClear();
      const all = await ask(context);
      const rows = await Promise.all(all.map((answers) => Array.fromAsync(answers.byTask())));
      return { rows, generations: started.mock.calls.length };
    };
    const plan = {
      ...{ tasks: source.training(1, settings.promptsPerIteration), samples: settings.candidates },
      ...{
        sampling: settings.sampling,
        purpose: "candidates" as const,
        position: { strategy: "temporal", iteration: 2 },
      },
    };
    const apart = await rowsOf("apart", async (context) => [
      await answerStage(context, { ...plan, model: current }),
      await answerStage(context, { ...plan, model: base }),
    ]);
    const together = await rowsOf("together", (context) =>
      answersTogether(context, { ...plan, models: [current, base] }),
    );
    expect(together.rows).toEqual(apart.rows);
    expect(apart.rows[0]).not.toEqual(apart.rows[1]);
    expect([apart.generations, together.generations]).toEqual([2, 1]);
    // And the run had them so.
    const candidates = await readAllRows(join(folder, "iterations/2/candidates.jsonl"));
    const past = candidates.filter(({ value }) => value.model === "M0").map(({ value }) => value.ids);
    expect(past).toEqual(together.rows[1]?.flatMap(({ answers }) => answers.map(({ ids }) => ids)));
  });

  it("takes what one of the models answered before from the store", async () => {
    const outcome = await runLoop({
      config: { run: "again", runs: join(scratch, "first"), settings: adapterSettings({ iterations: 1 }) },
    });
    expect(outcome.stages.computed).toBe(0);
  });

  it("goes on from an adapter, over a base in four bits, with moments in 8 bits", async () => {
    const prompts = join(folder, "evaluation/M0.jsonl");
    const settings = adapterSettings();
    const own = adapterSettings({
      ...{ model: join(folder, "models/M0"), adapter: join(folder, "models/M1"), lora: null, prompts, iterations: 1 },
      ...{ sampling: { ...settings.sampling, maxNewTokens: 14 }, replay: { ...settings.replay, weight: 0 } },
      evaluation: { ...settings.evaluation, sampling: { ...settings.evaluation.sampling, maxNewTokens: 14 } },
      start: { ...settings.start, demonstrations: 0, gradedExamples: 0 },
      engine: { ...settings.engine, quantize: "nf4", moments: "8bit" },
    });
    const outcome = await runLoop({ config: { run: "on", runs: join(scratch, "first"), settings: own } });
    const models = join(outcome.folder, "models");
    await openCheckpoint(join(models, "base"));
    for (const name of ["M0", "M1"]) expect((await openAdapter(join(models, name))).config.rank).toBe(4);
    expect(await readFile(join(models, "M0/adapter_model.safetensors"))).toEqual(
      await readFile(join(folder, "models/M1/adapter_model.safetensors")),
    );
  }, 60_000);

  it("fine-tunes M0 whole and lays adapters over it, or by an adapter over the given model", async () => {
    const questions = join(folder, "evaluation/M0.jsonl");
    const rows = (await readAllRows(questions)).slice(0, 8).map(({ value }) => value as { prompt: object });
    const data = join(scratch, "shown.jsonl");
    const completion = [{ role: "assistant", content: "1 2 3" }];
    await writeFile(data, rows.map(({ prompt }) => `${JSON.stringify({ prompt, completion })}\n`).join(""));
    const given = join(folder, "models/M0");
    const started = async (start: "full" | "adapter") => {
      const settings = adapterSettings();
      const changed = adapterSettings({
        ...{ model: given, prompts: questions, iterations: 1, lora: { ...settings.lora!, start } },
        ...{ sampling: { ...settings.sampling, maxNewTokens: 14 }, replay: { ...settings.replay, weight: 0 } },
        evaluation: { ...settings.evaluation, sampling: { ...settings.evaluation.sampling, maxNewTokens: 14 } },
        // With no warm-up: there is one step.
        start: {
          data: [data],
          demonstrations: 0,
          gradedExamples: 0,
          training: { ...settings.start.training, warmupSteps: 0 },
        },
      });
      const outcome = await runLoop({ config: { run: start, runs: join(scratch, "first"), settings: changed } });
      return join(outcome.folder, "models");
    };
    const weights = (model: string) => readFile(join(model, "model.safetensors"));
    const whole = await started("full");
    // The fine-tuned M0 is the base: no other is kept, and M1 lies over it.
    expect((await weights(join(whole, "M0"))).equals(await weights(given))).toBe(false);
    expect((await openAdapter(join(whole, "M1"))).base).toBe("models/M0");
    const adapted = await started("adapter");
    expect((await weights(join(adapted, "base"))).equals(await weights(given))).toBe(true);
    for (const name of ["M0", "M1"]) expect((await openAdapter(join(adapted, name))).base).toBe(given);
  }, 120_000);

  it("leaves the same bytes in another place, after it was stopped in the middle of both models' answers", async () => {
    const runs = join(scratch, "stopped");
    const config = { run: "run", runs, settings: adapterSettings() };
    const controller = new AbortController();
    let answers = 0;
    let inside = false;
    const observer = {
      ...silentObserver,
      begin: ({ label }: { label: string }) => {
        inside ||= label.includes("candidates of M1");
      },
      progress: (id: string) => {
        if (inside && id.startsWith("answers") && ++answers === 40) controller.abort();
      },
    };
    await expect(runLoop({ config, observer, signal: controller.signal })).rejects.toThrow(/abort/i);
    const outcome = await runLoop({ config });
    expect(outcome.stages.reused).toBeGreaterThan(5);
    expect(await artifacts(outcome.folder)).toEqual(await artifacts(folder));
  }, 300_000);
});
