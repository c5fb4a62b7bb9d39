import { createHash } from "node:crypto";
import { cpSync, existsSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { RunResult } from "@tempora/run";
import { oracle, readLines, scratch } from "@tempora/testing";
import { deriveSeed } from "@tempora/training";
import { createWorld } from "@tempora/world";
import { describe, expect, test, vi } from "vitest";
import { startTempora, tempora, temporaJson } from "./support/cli.ts";
import { tinyConfig } from "./support/tiny-run.ts";

// Whole runs: some ten seconds each on two free cores.
vi.setConfig({ testTimeout: 300_000 });

const folder = await scratch();
const runs = join(folder, "runs");

interface TrainResult {
  folder: string;
  report: string;
  stages: { computed: number; reused: number };
  run: RunResult;
}

interface WrittenPair {
  prompt_ids: number[];
  chosen_ids: number[];
  rejected_ids: number[];
  chosen_score: number;
  rejected_score: number;
}

function configFile(name: string, config: object): string {
  const file = join(folder, `${name}.config.ts`);
  writeFileSync(file, `export default ${JSON.stringify(config)};\n`);
  return file;
}

const tiny = configFile("tiny", tinyConfig);
const train = (...args: string[]) => ["train", tiny, "--runs", runs, ...args];

/** Every artifact of a run by its hash; the log of durations is none. */
function artifacts(run: string): Record<string, string> {
  const names = readdirSync(run, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && entry.name !== "timings.log" && !entry.name.startsWith("."))
    .map((entry) => join(entry.parentPath, entry.name).slice(run.length + 1));
  return Object.fromEntries(
    names.sort().map((name) => [
      name,
      createHash("sha256")
        .update(readFileSync(join(run, name)))
        .digest("hex"),
    ]),
  );
}

describe("a run in the embedded world", () => {
  test("leaves models, pairs, judgements, a report and the table", async () => {
    const { code, stdout, stderr } = await tempora(train("--run", "first"));
    expect(stderr).not.toMatch(/^error/m);
    expect(code).toBe(0);
    for (const name of ["M0", "temporal", "self-rewarding", "M1", "true score", "FLOPs", "report.html"]) {
      expect(stdout).toContain(name);
    }
    const run = join(runs, "first");
    for (const file of [
      "run.json",
      "events.jsonl",
      "report.html",
      "models/M1/model.safetensors",
      "models/M1/config.json",
    ]) {
      expect(existsSync(join(run, file)), file).toBe(true);
    }
    for (const pair of readLines<Record<string, unknown>>(join(run, "iterations/1/pairs.jsonl"))) {
      expect(pair).toHaveProperty("prompt");
      expect(pair.chosen_score as number).toBeGreaterThan(pair.rejected_score as number);
    }
  });

  test("run again is reused, and says so", async () => {
    const before = artifacts(join(runs, "first"));
    const again = await tempora([...train("--run", "first"), "--json"]);
    expect(again.code).toBe(0);
    expect(again.stderr).toMatch(/Reused all \d+ stages/);
    expect((JSON.parse(again.stdout) as TrainResult).stages.computed).toBe(0);
    expect(artifacts(join(runs, "first"))).toEqual(before);
  });

  test("shares what it has in common with a run of other settings", async () => {
    const other = await temporaJson<TrainResult>(train("--run", "past", "--strategy", "past-only"));
    expect(other.stages.reused).toBeGreaterThan(1);
    expect(other.run.strategies.map(({ name }) => name)).toEqual(["past-only"]);
    expect(artifacts(join(runs, "past"))["models/M0/model.safetensors"]).toBe(
      artifacts(join(runs, "first"))["models/M0/model.safetensors"],
    );
  });

  test("writes its report again by `report`", async () => {
    const run = join(runs, "first");
    const before = readFileSync(join(run, "report.html"), "utf8");
    const { code, stdout } = await tempora(["report", run]);
    expect(code).toBe(0);
    expect(stdout).toContain("self-rewarding");
    expect(readFileSync(join(run, "report.html"), "utf8")).toBe(before);
  });
});

interface Stored {
  stages: { kind: string; users: { run: string }[]; spentModel: number }[];
}

interface Cleaned {
  stages: unknown[];
  models: { kind: string; spentModel: number }[];
  bytes: number;
}

describe("the store of these runs", () => {
  const store = (place: string) => temporaJson<Stored>(["store", "--runs", place]);
  const clean = (place: string, ...flags: string[]) => temporaJson<Cleaned>(["clean", "--runs", place, ...flags]);

  test("is told by run, and keeps what they need when their folder is moved", async () => {
    const moved = join(folder, "moved");
    renameSync(runs, moved);
    try {
      const { stages } = await store(moved);
      expect(stages.filter(({ users }) => users.length === 0)).toEqual([]);
      expect([...new Set(stages.flatMap(({ users }) => users.map(({ run }) => run)))].sort()).toEqual([
        join(moved, "first"),
        join(moved, "past"),
      ]);
      expect((await clean(moved, "--dry-run")).stages).toEqual([]);
      const { code, stdout } = await tempora(["store", "--runs", moved]);
      expect(code).toBe(0);
      expect(stdout).toMatch(/preference-training .*\n(.*\n)*.*first/);
    } finally {
      renameSync(moved, runs);
    }
  });

  test("gives back what no run names and the models that were steps on the way; the run is what it was", async () => {
    const copied = join(folder, "copied");
    cpSync(runs, copied, { recursive: true });
    const again = () => tempora(["train", tiny, "--runs", copied, "--strategy", "temporal", "--run", "alone"]);
    expect((await again()).stderr).toMatch(/Reused all \d+ stages/);
    const before = artifacts(join(copied, "alone"));
    // What is temporary to this run is a model of another's strategy.
    expect(await clean(copied, "--dry-run")).toMatchObject({ stages: [], models: [], bytes: 0 });
    // A sum stands below the kinds, none below the runs.
    const { stdout } = await tempora(["store", "--runs", copied]);
    expect(stdout).toMatch(/\n╟.*\n║ all .*\n\n║ run .*\n╟.*\n(║ (first|past|alone) .*\n){3}\n*$/);
    for (const name of ["first", "past"]) rmSync(join(copied, name), { recursive: true });
    const planned = await clean(copied, "--dry-run");
    expect(planned.stages.length).toBeGreaterThan(0);
    expect(planned.models.map(({ kind }) => kind)).toEqual(["preference-training"]);
    expect(planned.models[0]?.spentModel).toBeGreaterThan(100_000);
    const told = await tempora(["clean", "--runs", copied, "--dry-run"]);
    expect(told.stdout).toMatch(/^Would remove \d+ stages .* the model of 1 finished training that was only a step/);
    expect((await clean(copied)).bytes).toBe(planned.bytes);
    expect(await clean(copied)).toMatchObject({ stages: [], models: [], bytes: 0 });
    expect((await again()).stderr).toMatch(/Reused all \d+ stages/);
    expect(artifacts(join(copied, "alone"))).toEqual(before);
  });

  test("is missed in a folder that has none", async () => {
    const { code, stderr } = await tempora(["clean", "--runs", join(folder, "nothing")]);
    expect(code).toBe(1);
    expect(stderr).toContain("There is no store");
  });
});

describe("a run that is interrupted", () => {
  const elsewhere = join(folder, "interrupted");
  const args = ["train", tiny, "--runs", elsewhere, "--run", "first"];

  test("by Ctrl-C stops soon with 130 and tells how to go on", async () => {
    const running = startTempora(args);
    await untilStage(elsewhere, "supervised-training");
    await sleep(300);
    const pressed = performance.now();
    running.child.kill("SIGINT");
    const { code, stderr } = await running.done;
    expect(performance.now() - pressed).toBeLessThan(2000);
    expect(code).toBe(130);
    expect(stderr).toContain("Run the same command again");
    expect(stderr).not.toMatch(/^error/m);
  });

  test("by SIGTERM stops as well, with 143", async () => {
    const running = startTempora(args);
    await untilLocked(running.child.pid as number);
    await untilStage(elsewhere, "supervised-training");
    await sleep(300);
    running.child.kill("SIGTERM");
    const { code, stderr } = await running.done;
    expect(code).toBe(143);
    expect(stderr).toContain("Run the same command again");
  });

  test("is locked against a second process while it goes on", async () => {
    const running = startTempora(args);
    await untilLocked(running.child.pid as number);
    const second = await tempora(args);
    expect(second.code).toBe(1);
    expect(second.stderr).toContain(`in use by process ${running.child.pid}`);
    expect(second.stderr).toContain("--run");
    running.child.kill("SIGKILL");
    expect((await running.done).code).toBeNull();
  });

  test("gives the same bytes after kill -9 at several points", async () => {
    for (const kind of ["answers", "judgements", "preference-training", "answers"]) {
      const running = startTempora(args);
      await untilLocked(running.child.pid as number);
      await untilStage(elsewhere, kind);
      await sleep(150);
      running.child.kill("SIGKILL");
      await running.done;
    }
    const { code, stderr } = await tempora(args);
    expect(code).toBe(0);
    expect(stderr).toMatch(/Reused \d+ stages that were in the store, computed [1-9]/);
    const whole = artifacts(join(runs, "first"));
    expect(Object.keys(whole).length).toBeGreaterThan(15);
    expect(artifacts(join(elsewhere, "first"))).toEqual(whole);
  });
});

describe("a run from a checkpoint", () => {
  const m0 = () => join(runs, "first", "models", "M0");

  test("takes the model and prompts of one's own", async () => {
    const prompts = join(folder, "prompts.jsonl");
    const texts = createWorld({ seed: 5 }).prompts("train", 40);
    writeFileSync(prompts, texts.map(({ text }) => `${JSON.stringify({ prompt: text })}\n`).join(""));
    const { start, ...settings } = tinyConfig;
    const sampling = { maxNewTokens: 14 };
    const evaluation = { ...settings.evaluation, sampling };
    const config = configFile("own", { ...settings, sampling, evaluation, baselines: [], replay: { weight: 0 } });
    expect(start.demonstrations).toBeGreaterThan(0);
    const command = ["train", config, "--model", m0(), "--prompts", prompts, "--runs", runs, "--run", "own"];
    const { run } = await temporaJson<TrainResult>(command);
    expect(run.graded).toBe(false);
    expect(run.start.origin).toBe("given");
    expect(run.strategies[0]?.models.map(({ model }) => model)).toEqual(["M0", "M1"]);
  });

  test("stops with the counts when the judgements do not parse", async () => {
    const prompts = join(folder, "questions.jsonl");
    const rows = Array.from({ length: 12 }, (_, index) => `${JSON.stringify({ prompt: `Question ${index}?` })}\n`);
    writeFileSync(prompts, rows.join(""));
    const config = configFile("noise", {
      candidates: 2,
      iterations: 1,
      sampling: { maxNewTokens: 8 },
      evaluation: { prompts: 2, judgements: 1, sampling: { maxNewTokens: 8 } },
      judge: {
        retries: 1,
        judgements: 2,
        sampling: { maxNewTokens: 8 },
        template: { name: "short", text: "Q: {prompt} A: {response} Score:", maxScore: 5 },
      },
    });
    const model = ["--model", oracle("llama", "policy"), "--prompts", prompts];
    const { code, stderr, stdout } = await tempora(["train", config, ...model, "--runs", runs, "--run", "noise"]);
    expect(code).toBe(1);
    expect(stdout).toBe("");
    expect(stderr).toMatch(/error: .*\d+ of \d+ judgements gave no score/);
    expect(stderr).toMatch(/remedy: .*graded examples/);
    expect(existsSync(join(runs, "noise", "iterations", "1", "pairs.jsonl"))).toBe(false);
    // How it came to that is to be seen.
    const result = JSON.parse(readFileSync(join(runs, "noise", "run.json"), "utf8")) as RunResult;
    expect(result).toMatchObject({ status: "failed", failure: expect.stringContaining("judgements gave no score") });
    expect(stderr).toContain(join(runs, "noise", "report.html"));
    const page = readFileSync(join(runs, "noise", "report.html"), "utf8");
    expect(page).toMatch(/The run ended early<\/h3><p>The judge M0 is of no use here/);
  });

  test("goes the same way step by step: generate, judge, pairs, dpo", async () => {
    const prompts = join(folder, "steps.jsonl");
    const texts = createWorld({ seed: 6 }).prompts("train", 16);
    const rows = texts.map(({ text }) => `${JSON.stringify({ prompt: [{ role: "user", content: text }] })}\n`);
    writeFileSync(prompts, rows.join(""));
    const file = (name: string) => join(folder, name);
    const short = ["--temperature", "1", "--top-p", "1", "--max-new-tokens", "14"];
    const spoken = ["--temperature", "0.3", "--top-p", "1", "--max-new-tokens", "50"];
    const model = ["--model", m0()];
    await temporaJson([
      "generate",
      ...model,
      "--data",
      prompts,
      "--out",
      file("candidates.jsonl"),
      "--n",
      "4",
      ...short,
    ]);
    const judged = ["judge", ...model, "--data", file("candidates.jsonl"), "--out", file("judged.jsonl"), ...spoken];
    const { audit } = await temporaJson<{ audit: { judgements: number; failures: number } }>(judged);
    expect(audit.judgements).toBeGreaterThan(audit.failures);
    const formed = ["pairs", "--data", file("judged.jsonl"), "--out", file("formed.jsonl"), "--strategy", "temporal"];
    const { pairs } = await temporaJson<{ pairs: number }>(formed);
    const written = readLines<WrittenPair>(file("formed.jsonl"));
    expect(written).toHaveLength(pairs);
    const generated = readLines<{ prompt_ids: number[]; completions: { ids: number[] }[] }>(file("candidates.jsonl"));
    for (const pair of written) {
      expect(pair.chosen_score).toBeGreaterThan(pair.rejected_score);
      const row = generated.find(({ prompt_ids }) => prompt_ids.join() === pair.prompt_ids.join());
      const sampled = row?.completions.map(({ ids }) => ids);
      expect(sampled).toContainEqual(pair.chosen_ids);
      expect(sampled).toContainEqual(pair.rejected_ids);
    }
    const dpo = [
      "dpo",
      ...model,
      "--data",
      file("formed.jsonl"),
      "--out",
      file("stepped"),
      "--loss",
      "sigmoid,sft:0.3",
    ];
    const { code, stdout, stderr } = await tempora([...dpo, "--lr", "3e-4", "--batch-pairs", "4", "--json"]);
    expect(code).toBe(0);
    expect(stderr).toContain(`${pairs} rows bring token ids: those are trained on, not their text`);
    expect(stderr).not.toContain("warning");
    expect((JSON.parse(stdout) as { steps: number }).steps).toBe(Math.ceil(pairs / 4));
  });

  test("dpo on a run's pairs gives the run's model, to the bit", async () => {
    const { start: _, replay: _replay, ...settings } = tinyConfig;
    const prompts = join(folder, "again.jsonl");
    const texts = createWorld({ seed: 7 }).prompts("train", 40);
    writeFileSync(prompts, texts.map(({ text }) => `${JSON.stringify({ prompt: text })}\n`).join(""));
    const training = { ...settings.training, learningRate: 3e-4, warmupSteps: 0 };
    const config = configFile("again", {
      ...settings,
      training,
      strategy: "self-rewarding",
      sampling: { maxNewTokens: 12 },
      evaluation: { ...settings.evaluation, sampling: { maxNewTokens: 12 } },
    });
    const command = ["train", config, "--model", m0(), "--prompts", prompts, "--runs", runs, "--run", "again"];
    const { run } = await temporaJson<TrainResult>(command);
    expect(run.strategies[0]?.iterations[0]?.phases[0]?.pairs).toBeGreaterThan(8);
    const out = join(folder, "by-hand");
    await temporaJson([
      "dpo",
      ...["--model", m0(), "--data", join(runs, "again/iterations/1/pairs.jsonl"), "--out", out],
      ...["--lr", "3e-4", "--warmup-steps", "0", "--batch-pairs", String(training.batchPairs)],
      ...["--seed", String(deriveSeed(0, "training", 1))],
    ]);
    const weights = (model: string) => readFileSync(join(model, "model.safetensors"));
    expect(weights(out).equals(weights(join(runs, "again/models/M1")))).toBe(true);
    expect(weights(out).equals(weights(m0()))).toBe(false);
  });
});

/** Waits until the process has the run to itself. */
async function untilLocked(pid: number): Promise<void> {
  const owner = join(folder, "interrupted", "first", ".lock-owner");
  await until(`process ${pid} locked the run`, () => {
    return existsSync(owner) && readFileSync(owner, "utf8").includes(`"pid":${pid},`);
  });
}

/** Waits until the run computes a stage of this kind: its folder in the store has no result yet. */
async function untilStage(place: string, kind: string): Promise<void> {
  const stages = join(place, ".store", kind);
  await until(`a stage ${kind} began`, () => {
    const keys = existsSync(stages) ? readdirSync(stages) : [];
    return keys.some((key) => !existsSync(join(stages, key, "result.json")));
  });
}

async function until(what: string, holds: () => boolean): Promise<void> {
  const deadline = performance.now() + 200_000;
  while (!holds()) {
    if (performance.now() > deadline) throw new Error(`waited in vain until ${what}`);
    await sleep(20);
  }
}
