import { spawn } from "node:child_process";
import { cp, mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openCheckpoint } from "@tempora/models";
import { oracle } from "@tempora/testing";
import { preferenceRow, readAllRows, Tokenizer, tokenizePreference } from "@tempora/text";
import { chatTemplate } from "@tempora/world";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Observer, silentObserver } from "../results/observer.ts";
import type { EventRow, RunResult } from "../results/results.ts";
import { paperSettings, type Settings } from "../settings/settings.ts";
import { worldSource } from "../sources/world.ts";
import { cleanStore, storeOf } from "../store/inventory.ts";
import { lockFolder } from "../store/locks.ts";
import { type LoopOptions, runLoop as runTheLoop } from "./loop.ts";
import { artifacts, tinySettings } from "./tiny.ts";

let scratch: string;
beforeAll(async () => {
  scratch = await mkdtemp(join(tmpdir(), "tempora-loop-"));
});
afterAll(() => rm(scratch, { recursive: true, force: true }));

/** Runs with one version of the code, whatever is edited while the tests run. */
const runLoop = (options: LoopOptions) => runTheLoop({ codeVersion: "test", ...options });

const config = (runs: string, settings: Settings = tinySettings(), run = "run") => ({ run, runs, settings });

/** Runs the loop in a process of its own and kills it when `when` says so. Fails when it ended by itself. */
async function killedRun(runs: string, when: (line: string) => boolean): Promise<void> {
  const script = `
    import { worldSource } from "../sources/world.ts";
import { runLoop } from "./loop.ts";
    import { tinySettings } from "./tiny.ts";
    const say = (text) => process.stdout.write(text + "\\n");
    import { silentObserver } from "../results/observer.ts";
    const observer = { ...silentObserver, begin: (s) => say("begin " + s.label), progress: (id, done) => say("progress " + id + " " + done),
      finish: (id) => say("finish " + id) };
    await runLoop({ config: { run: "run", runs: ${JSON.stringify(runs)}, settings: tinySettings() }, codeVersion: "test",
      observer });`;
  const child = spawn(process.execPath, ["-e", script], {
    cwd: import.meta.dirname,
    stdio: ["ignore", "pipe", "inherit"],
  });
  let rest = "";
  child.stdout.on("data", (data: Buffer) => {
    const lines = (rest + data.toString()).split("\n");
    rest = lines.pop() ?? "";
    if (lines.some(when)) child.kill("SIGKILL");
  });
  const signal = await new Promise((done) => child.once("exit", (_code, by) => done(by)));
  expect(signal).toBe("SIGKILL");
}

describe("runLoop in the embedded world", () => {
  let folder: string;
  let result: RunResult;
  let reference: Record<string, string>;
  const labels: string[] = [];

  beforeAll(async () => {
    const observer: Observer = { ...silentObserver, begin: ({ label }) => labels.push(label) };
    const outcome = await runLoop({ config: config(join(scratch, "first")), observer });
    ({ folder, result } = outcome);
    expect(outcome.stages.computed).toBeGreaterThan(10);
    reference = await artifacts(folder);
  }, 300_000);

  it("leaves a finished run with both strategies, every model and the ledger", async () => {
    const saved = JSON.parse(await readFile(join(folder, "run.json"), "utf8")) as RunResult;
    expect(saved).toEqual(JSON.parse(JSON.stringify(result)));
    expect(saved.status).toBe("finished");
    expect(saved.strategies.map(({ name, folder: place }) => [name, place])).toEqual([
      ["temporal", ""],
      ["self-rewarding", "self-rewarding/"],
    ]);
    const [temporal] = saved.strategies;
    expect(temporal?.models.map(({ model }) => model)).toEqual(["M0", "M1", "M2"]);
    expect(temporal?.iterations.map(({ phases }) => phases.map(({ trained }) => trained))).toEqual([
      ["F1", "M1"],
      ["F2", "M2"],
    ]);
    const entries = temporal?.iterations.flatMap(({ ledger }) => ledger) ?? [];
    expect(entries.reduce((sum, { flops }) => sum + flops, 0)).toBeCloseTo(temporal?.totals.flops ?? 0, -3);
    for (const { folder: model } of temporal?.models ?? []) await openCheckpoint(join(folder, model));
  });

  it("gives the baseline the compute that comes nearest", () => {
    const [temporal, baseline] = result.strategies;
    const target = temporal?.totals.flops ?? 0;
    const spent = baseline?.totals.flops ?? 0;
    const iterations = baseline?.iterations ?? [];
    const last = iterations.at(-1)?.ledger.reduce((sum, { flops }) => sum + flops, 0) ?? 0;
    expect(iterations.length).toBeGreaterThan(2);
    expect(Math.abs(spent - target)).toBeLessThanOrEqual(last);
  });

  it("takes the past pool from M0 and shares it with the current one in the first iteration", async () => {
    const roles = async (iteration: number) => {
      const rows = await readAllRows(join(folder, `iterations/${iteration}/candidates.jsonl`));
      return new Set(rows.map(({ value }) => `${value.role} ${value.model}`));
    };
    expect(await roles(1)).toEqual(new Set(["current M0", "future F1"]));
    expect(await roles(2)).toEqual(new Set(["current M1", "past M0", "future F2"]));
  });

  it("writes pairs that are strictly ordered by score and that our own dpo reads as they are", async () => {
    const tokenizer = await Tokenizer.load(join(folder, "models/M0"));
    for (const name of ["pairs-future", "pairs"]) {
      const file = join(folder, `iterations/2/${name}.jsonl`);
      const rows = await readAllRows(file);
      expect(rows.length).toBeGreaterThan(0);
      for (const row of rows) {
        expect(row.value.chosen_score as number).toBeGreaterThan(row.value.rejected_score as number);
        expect(Object.keys(row.value).slice(0, 3)).toEqual(["prompt", "chosen", "rejected"]);
        tokenizePreference(preferenceRow(row, file), tokenizer, { maxLength: 128 });
      }
    }
  });

  it("trains on the ids that were sampled, with the texts for people beside them", async () => {
    const candidates = new Map<unknown, Record<string, unknown>>();
    for (const { value } of await readAllRows(join(folder, "iterations/2/candidates.jsonl"))) {
      candidates.set(value.id, value);
    }
    const tokenizer = await Tokenizer.load(join(folder, "models/M0"));
    const file = join(folder, "iterations/2/pairs.jsonl");
    let alike = 0;
    for (const { row, value } of await readAllRows(file)) {
      const [chosen, rejected] = [candidates.get(value.chosen_id), candidates.get(value.rejected_id)];
      expect([value.chosen_ids, value.rejected_ids]).toEqual([chosen?.ids, rejected?.ids]);
      expect([chosen?.finish_reason, rejected?.finish_reason]).toEqual(["stop", "stop"]);
      // What is flagged are the pairs that TRL, which reads the text, trains on other ids of.
      const { prompt, chosen: better, rejected: worse } = value;
      const text = preferenceRow({ row, value: { prompt, chosen: better, rejected: worse } }, file);
      const { chosenIds, rejectedIds } = tokenizePreference(text, tokenizer);
      const same = JSON.stringify([chosenIds, rejectedIds]) === JSON.stringify([value.chosen_ids, value.rejected_ids]);
      expect(value.text_differs).toBe(same ? undefined : true);
      if (same) alike++;
    }
    expect(alike).toBeGreaterThan(0);
  });

  it("keeps counts and hashes in the store's results, and no rows", async () => {
    const store = join(scratch, "first/.store");
    const names = (await readdir(store, { recursive: true })).filter((name) => name.endsWith("result.json"));
    const kinds = new Set(names.map((name) => name.split("/")[0]));
    for (const kind of [
      "answers",
      "judgements",
      "reference",
      "representations",
      "preference-training",
      "supervised-training",
    ]) {
      expect(kinds).toContain(kind);
    }
    for (const name of names) {
      // What an iteration or an evaluation came to is what run.json says of it.
      const table = /^(iteration|evaluation)\//.test(name);
      const text = await readFile(join(store, name), "utf8");
      expect(text, name).not.toMatch(table ? /"(ids|text|prompt)":/ : /\[/);
    }
  });

  it("goes on from the future model and rejects from the previous one, when told to", async () => {
    const settings: Settings = { ...tinySettings(), baselines: [], iterations: 3 };
    const place = join(scratch, "first");
    const told: Settings = { ...settings, past: "previous", nextStartsFrom: "future" };
    const variant = await runLoop({ config: config(place, told, "variant") });
    // Until the future model is there, it is the run that was.
    expect(variant.stages.reused).toBeGreaterThan(6);
    const iterations = variant.result.strategies[0]?.iterations ?? [];
    expect(iterations.map(({ phases }) => phases.map(({ start, trained }) => `${start} ${trained}`))).toEqual([
      ["M0 F1", "F1 M1"],
      ["M1 F2", "F2 M2"],
      ["M2 F3", "F3 M3"],
    ]);
    const pools = iterations.map(({ audits }) => audits.map(({ role, model }) => `${role} ${model}`));
    expect(pools).toEqual([
      ["current M0", "future F1"],
      ["current M1", "past M0", "future F2"],
      ["current M2", "past M1", "future F3"],
    ]);
    // The strategy of that name does the same, and can be a baseline.
    const named = await runLoop({
      config: config(place, { ...settings, strategy: "temporal-previous-continued" }, "named-variant"),
    });
    expect(named.stages.computed).toBe(0);
    expect(named.result.strategies[0]?.iterations.map(({ phases }) => phases)).toEqual(
      variant.result.strategies[0]?.iterations.map(({ phases }) => phases),
    );
    // The reference is the model that the training starts from: at first every reward is zero.
    for (const { phases } of iterations) {
      for (const { training } of phases) expect(training.first["rewards/margins"]).toBe(0);
    }
  }, 300_000);

  it("logs one event for every step of every model in training", async () => {
    const events = (await readAllRows(join(folder, "events.jsonl"))).map(({ value }) => value as unknown as EventRow);
    const steps = events.filter((row) => row.event === "step" && row.strategy === "temporal" && row.model === "M2");
    expect(steps.length).toBe(result.strategies[0]?.iterations[1]?.phases[1]?.training.steps);
    expect(events.filter(({ event }) => event === "stage").length).toBe(labels.length);
  });

  it("computes nothing the second time and leaves the same bytes", async () => {
    const outcome = await runLoop({ config: config(join(scratch, "first")) });
    expect(outcome.stages.computed).toBe(0);
    expect(await artifacts(folder)).toEqual(reference);
  });

  it("leaves the same bytes in another place, after kills at several points", async () => {
    const runs = join(scratch, "killed");
    const at = (label: RegExp, progress: number) => {
      let inside = false;
      let count = 0;
      return (line: string) => {
        if (line.startsWith("begin")) inside = label.test(line);
        return inside && line.startsWith("progress") && ++count === progress;
      };
    };
    await killedRun(runs, at(/supervised training of M0/, 5));
    await killedRun(runs, at(/candidates of M0$/, 50));
    await killedRun(runs, at(/M0 judges candidates of M0/, 120));
    await killedRun(runs, at(/training F1/, 1));
    await killedRun(runs, at(/candidates of F2/, 20));
    const outcome = await runLoop({ config: config(runs) });
    expect(outcome.stages.reused).toBeGreaterThan(5);
    expect(outcome.stages.computed).toBeGreaterThan(5);
    expect(await artifacts(outcome.folder)).toEqual(reference);
  }, 600_000);

  it("is the same again after its future models were cleaned away", async () => {
    const runs = join(scratch, "cleaned");
    const first = await runLoop({ config: config(runs) });
    const { models, stages } = await cleanStore(storeOf(runs), { pretend: false });
    // The first iteration's is also the baseline's M1.
    expect([models.length, stages.length]).toEqual([1, 0]);
    const again = await runLoop({ config: config(runs) });
    expect(again.stages).toEqual({ computed: 0, reused: first.stages.computed + first.stages.reused });
    expect(await artifacts(again.folder)).toEqual(reference);
  }, 300_000);

  it("stops when asked, and goes on with the same bytes; a training tells its tokens a second", async () => {
    const runs = join(scratch, "aborted");
    const controller = new AbortController();
    const rates: (number | undefined)[] = [];
    let answers = 0;
    const observer: Observer = {
      ...silentObserver,
      progress(id, _, extra) {
        if (extra?.loss !== undefined) rates.push(extra["tokens/s"]);
        if (id.startsWith("answers") && ++answers === 30) controller.abort();
      },
    };
    await expect(runLoop({ config: config(runs), observer, signal: controller.signal })).rejects.toThrow(/abort/i);
    expect(rates.length).toBeGreaterThan(0);
    expect(rates.every((rate) => Number.isFinite(rate) && Number(rate) > 0)).toBe(true);
    const outcome = await runLoop({ config: config(runs) });
    expect(await artifacts(outcome.folder)).toEqual(reference);
  }, 300_000);

  it("replaces a run of other settings only when told to", async () => {
    const place = join(scratch, "aborted");
    const settings = { ...tinySettings(), iterations: 1, baselines: [] };
    await expect(runLoop({ config: config(place, settings) })).rejects.toThrow(/what differs: .*iterations/);
    expect(await artifacts(join(place, "run"))).toEqual(reference);
    const outcome = await runLoop({ config: config(place, settings), overwrite: true });
    // All but the iteration's end is what the longer run has made.
    expect(outcome.stages.computed).toBe(0);
    await expect(stat(join(outcome.folder, "iterations/2"))).rejects.toThrow(/ENOENT/);
  });

  it("goes on after an upgrade with what the earlier code has made, when told to, and says so", async () => {
    const notes: string[] = [];
    const observer: Observer = { ...silentObserver, note: (text) => notes.push(text) };
    const one = config(join(scratch, "killed"));
    const outcome = await runLoop({ config: one, observer, codeVersion: "upgraded", keepStages: true });
    expect(outcome.stages.computed).toBe(0);
    expect(outcome.result).toMatchObject({ codeVersion: "upgraded", keptCode: ["test"] });
    expect(notes.join()).toContain("Stages that earlier code (test) has begun are kept");
  });

  it("refuses a run that another process holds", async () => {
    const lock = await lockFolder(join(scratch, "first", "run"), "The run", () => {});
    await expect(runLoop({ config: config(join(scratch, "first")) })).rejects.toThrow(/The run is in use by process/);
    await lock.release();
  });
});

describe("runLoop from a checkpoint", () => {
  it("stops with the counts and the remedy when the model cannot judge", async () => {
    const settings: Settings = {
      ...paperSettings,
      model: oracle("llama", "policy"),
      prompts: oracle("preference.jsonl"),
      candidates: 2,
      promptsPerIteration: 4,
      sampling: { ...paperSettings.sampling, maxNewTokens: 8 },
      judge: { ...paperSettings.judge, sampling: { ...paperSettings.judge.sampling, maxNewTokens: 8 } },
      evaluation: {
        ...paperSettings.evaluation,
        sampling: { ...paperSettings.evaluation.sampling, maxNewTokens: 8 },
      },
    };
    await expect(runLoop({ config: config(join(scratch, "model"), settings) })).rejects.toThrow(
      /The judge M0 is of no use .* judgements gave no score .*--judge expected.*graded examples/s,
    );
  });

  it("trains a run's M0 on prompts of one's own, judged by the template that it carries", async () => {
    const tiny = tinySettings();
    const world = worldSource(tiny);
    const prompts = join(scratch, "own.jsonl");
    const texts = [...world.training(5, 40), ...world.heldOut().slice(0, 10)].map(({ text }) =>
      JSON.stringify({ prompt: text }),
    );
    await writeFile(prompts, texts.join("\n"));
    const settings: Settings = {
      ...tiny,
      model: join(scratch, "first/run/models/M0"),
      prompts,
      iterations: 1,
      baselines: [],
      replay: { ...tiny.replay, weight: 0 },
    };
    const { result, folder } = await runLoop({ config: config(join(scratch, "model"), settings, "own") });
    expect(result).toMatchObject({ status: "finished", graded: false, start: { origin: "given" } });
    const [, first] = result.strategies[0]?.models ?? [];
    expect(first?.winRateBy).toBe("judge");
    expect(first?.winRate?.count).toBeGreaterThan(0);
    const [pair] = await readAllRows(join(folder, "iterations/1/pairs.jsonl"));
    expect(pair?.value.prompt).toEqual([{ role: "user", content: expect.any(String) }]);
  }, 300_000);

  describe("whose template opens an answer that its text does not show", () => {
    interface Row {
      id: string;
      ids: number[];
      finish_reason: string;
    }
    let settings: Settings;
    let ending: number | undefined;

    beforeAll(async () => {
      const model = join(scratch, "opening");
      await cp(join(scratch, "first/run/models/M0"), model, { recursive: true });
      // As templates that open <think>: what follows the prompt is not what the conversation's own text has there.
      const opened = chatTemplate.replace(/(add_generation_prompt %}{{ '([^']+)' }})/, "$1{{ '$2' }}");
      const file = join(model, "tokenizer_config.json");
      const config = { ...JSON.parse(await readFile(file, "utf8")), chat_template: opened };
      await rm(file);
      await writeFile(file, JSON.stringify(config));
      const prompts = join(scratch, "opening.jsonl");
      const texts = worldSource(tinySettings())
        .training(7, 40)
        .map(({ text }) => JSON.stringify({ prompt: text }));
      await writeFile(prompts, texts.join("\n"));
      const tiny = tinySettings();
      settings = {
        ...tiny,
        model,
        prompts,
        iterations: 1,
        strategy: "self-rewarding",
        baselines: [],
        sampling: { ...tiny.sampling, maxNewTokens: 6 },
        judge: { ...tiny.judge, role: "external", model: join(scratch, "first/run/models/M0") },
        replay: { ...tiny.replay, weight: 0 },
      };
      ending = (await Tokenizer.load(model)).eosId ?? undefined;
    }, 300_000);

    async function run(truncated: "drop" | "keep") {
      const selection = { ...settings.selection, truncated };
      const notes: string[] = [];
      const observer: Observer = { ...silentObserver, note: (text) => notes.push(text) };
      const over = { ...settings, selection };
      const { result, folder } = await runLoop({ config: config(join(scratch, "model"), over, truncated), observer });
      const read = async <T>(name: string) =>
        (await readAllRows(join(folder, "iterations/1", name))).map(({ value }) => value as T);
      const candidates = new Map((await read<Row>("candidates.jsonl")).map((row) => [row.id, row]));
      const pairs = await read<Record<string, unknown>>("pairs.jsonl");
      const sides = pairs.flatMap((pair) =>
        (["chosen", "rejected"] as const).map((side) => {
          const candidate = candidates.get(pair[`${side}_id`] as string) as Row;
          return { ids: pair[`${side}_ids`] as number[], candidate };
        }),
      );
      const phase = result.strategies[0]?.iterations[0]?.phases[0];
      return { phase, pairs, sides, candidates: [...candidates.values()], notes };
    }

    it("trains on what was sampled all the same, and flags the pairs", async () => {
      const { phase, pairs, sides, candidates, notes } = await run("drop");
      expect(pairs.length).toBeGreaterThan(0);
      expect(pairs.every(({ text_differs }) => text_differs === true)).toBe(true);
      expect(phase?.textDiffers).toBe(pairs.length);
      for (const { ids, candidate } of sides) {
        expect(ids).toEqual(candidate.ids);
        expect(candidate.finish_reason).toBe("stop");
        expect(ids.at(-1)).toBe(ending);
      }
      const cut = candidates.filter(({ finish_reason }) => finish_reason === "length").length;
      expect(cut).toBeGreaterThan(0.2 * candidates.length);
      expect(phase).toMatchObject({ truncated: cut, answers: candidates.length });
      expect(notes.join()).toContain("were cut off by length and left out of the pairs");
    }, 300_000);

    it("keeps answers that were cut off without an end token, when told to", async () => {
      const { sides, notes } = await run("keep");
      const cut = sides.filter(({ candidate }) => candidate.finish_reason === "length");
      expect(cut.length).toBeGreaterThan(0);
      for (const { ids, candidate } of cut) {
        expect(ids).toEqual(candidate.ids);
        expect(ids).not.toContain(ending);
      }
      expect(notes.join()).not.toContain("left out of the pairs");
    }, 300_000);
  });
});
