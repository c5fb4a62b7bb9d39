import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { oracle, scratch } from "@tempora/testing";
import { describe, expect, it } from "vitest";
import { silentObserver } from "../results/observer.ts";
import { paperSettings, type Settings } from "../settings/settings.ts";
import { dryRun } from "./dry-run.ts";
import { runLoop } from "./loop.ts";

const folder = await scratch();

describe("a run with a prompt that has no room in the context", () => {
  const long = async () => {
    const prompts = join(folder, "long.jsonl");
    const rows = ["Short?", "long ".repeat(5000), ...Array.from({ length: 8 }, (_, k) => `Question ${k}?`)];
    await writeFile(prompts, rows.map((prompt) => `${JSON.stringify({ prompt })}\n`).join(""));
    // The five-point rubric, an answer and a judgement are more than this model's context.
    const template = { name: "short", text: "Q: {prompt} A: {response} Score:", maxScore: 5 };
    const judge = { ...paperSettings.judge, template };
    return { ...paperSettings, model: oracle("llama", "policy"), prompts, promptsPerIteration: 4, judge };
  };
  /** Ends with the first stage or note, whichever comes first, those of memory and time aside, which are said before all else. */
  const started = (settings: Settings, name: string) => {
    const seen: string[] = [];
    const stop = new AbortController();
    const note = (text: string) => {
      if (/^(Memory|Time): /.test(text)) return;
      seen.push(text);
      stop.abort();
    };
    const observer = { ...silentObserver, note, begin: ({ label }: { label: string }) => note(label) };
    const options = {
      config: { run: name, runs: join(folder, "runs"), settings },
      codeVersion: "test",
      observer,
      signal: stop.signal,
    };
    return { run: runLoop(options), seen };
  };

  it("names the row whose answer has none before anything is sampled", async () => {
    const { run, seen } = started(await long(), "long");
    await expect(run).rejects.toThrow(/long.jsonl, row 2, field prompt/);
    expect(seen).toEqual([]);
  });

  it("names the row where only a baseline's further iterations ask it", async () => {
    const short = { ...(await long()), iterations: 1, promptsPerIteration: 1 };
    const alone = started(short, "short");
    await expect(alone.run).rejects.toThrow();
    expect(alone.seen).not.toEqual([]);
    const { run, seen } = started({ ...short, baselines: ["self-rewarding"] }, "baseline");
    await expect(run).rejects.toThrow(/long.jsonl, row 2, field prompt/);
    expect(seen).toEqual([]);
  });

  /** The answer fits, but not together with the judge's question and a judgement. */
  const judgedLong = async (): Promise<Settings> => {
    const settings = await long();
    const rows = ["word ".repeat(80), ...Array.from({ length: 9 }, (_, k) => `Question ${k}?`)];
    await writeFile(settings.prompts, rows.map((prompt) => `${JSON.stringify({ prompt })}\n`).join(""));
    return settings;
  };

  it("names the row whose judgement has none before anything is sampled", async () => {
    const settings = await judgedLong();
    const { run, seen } = started(settings, "judged-long");
    await expect(run).rejects.toThrow(
      /The judge's question .* take \d+ tokens.* \(.*long.jsonl, row 1, field prompt\)/,
    );
    expect(seen).toEqual([]);
    const without = { ...settings.judge, kind: "function" as const };
    const functions = [{ name: "same", version: "1", weight: 1, range: [0, 1] as [number, number], score: () => [] }];
    const checked = started({ ...settings, judge: { ...without, functions } }, "by-function");
    await expect(checked.run).rejects.toThrow();
    expect(checked.seen).toHaveLength(1);
  });

  it("leaves it out and counts it where its judgement has none and that is asked for", async () => {
    const { run, seen } = started({ ...(await judgedLong()), skipTooLong: true }, "judged-skipped");
    await expect(run).rejects.toThrow();
    expect(seen[0]).toMatch(/^1 of the prompts are left out. The first: The judge's question/);
  });

  it("keeps in run.json how many it left out and the first, and a dry run finds the same", async () => {
    const settings = await long();
    const score = ({ answers }: { answers: string[] }) => answers.map((answer) => answer.length);
    const functions = [{ name: "length", version: "1", weight: 1, range: [0, 99] as [number, number], score }];
    const short: Settings = {
      ...settings,
      ...{ skipTooLong: true, iterations: 1, promptsPerIteration: 7, candidates: 2 },
      judge: { ...settings.judge, kind: "function", functions },
      sampling: { ...settings.sampling, maxNewTokens: 6, temperature: 1 },
      evaluation: { ...settings.evaluation, sampling: { ...settings.sampling, maxNewTokens: 6 } },
      selection: { ...settings.selection, truncated: "keep" },
    };
    const leftOut = {
      prompts: 1,
      first: { file: settings.prompts, row: 2, reason: expect.stringMatching(/^The prompt has \d+ tokens/) },
    };
    const runs = join(folder, "kept");
    const dry = (of: Settings) => dryRun({ settings: of, runs, observer: silentObserver, signal: undefined });
    const estimate = await dry(short);
    expect(estimate.leftOut).toEqual(leftOut);
    await expect(dry({ ...short, skipTooLong: false })).rejects.toThrow(/long.jsonl, row 2, field prompt/);
    const { result } = await runLoop({ config: { run: "a", runs, settings: short }, codeVersion: "test" });
    expect(result.leftOut).toEqual(leftOut);
    expect(JSON.parse(await readFile(join(runs, "a", "run.json"), "utf8")).leftOut).toEqual(leftOut);
    const stages = result.strategies[0]?.iterations[0]?.ledger.filter(({ stage }) => stage === "generate") ?? [];
    const read = estimate.stages.find(({ kind }) => kind === "generate")?.totals.promptTokens;
    expect(read).toBe(stages.reduce((sum, { promptTokens }) => sum + promptTokens, 0));
  });

  it("leaves it out and counts it where that is asked for", async () => {
    const { run, seen } = started({ ...(await long()), skipTooLong: true }, "skipped");
    await expect(run).rejects.toThrow();
    expect(seen[0]).toMatch(/^1 of the prompts are left out. The first: The prompt has \d+ tokens/);
  });
});
