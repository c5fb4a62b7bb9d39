import { appendFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { sampleRun } from "../testing/sample-run.ts";
import { readLiveRun } from "./live-run.ts";
import { PageFeed } from "./page-feed.ts";
import { settingDifferences, sideBySide } from "./side-by-side.ts";

const folder = mkdtempSync(join(tmpdir(), "tempora-live-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const line = (row: object) => `${JSON.stringify(row)}\n`;

describe("a run folder while its run goes on", () => {
  test("is read before run.json is there, without the line that is being written", async () => {
    const run = join(folder, "young");
    const [, step] = sampleRun().events;
    mkdirSync(join(run, "iterations", "1"), { recursive: true });
    expect(await readLiveRun(run)).toBeNull();
    writeFileSync(join(run, "events.jsonl"), `${line({ ...step, strategy: "temporal", iteration: 1 })}{"event":"st`);
    writeFileSync(join(run, "iterations", "1", "pairs-future.jsonl"), line(sampleRun().pairs[0]?.rows[0] ?? {}));
    writeFileSync(join(run, "started.json"), JSON.stringify({ date: "2026-01-31", settings: { seed: 7 } }));
    const read = await readLiveRun(run);
    expect(read?.result.settings).toEqual({ seed: 7 });
    expect(read?.events).toHaveLength(1);
    expect(read?.result.strategies.map(({ name }) => name)).toEqual(["temporal"]);
    expect(read?.pairs.map(({ phase, rows }) => [phase, rows.length])).toEqual([[1, 1]]);
  });

  test("is told to its pages as it grows, and that it ended", async () => {
    const run = join(folder, "growing");
    mkdirSync(run);
    const feed = new PageFeed({ folders: [run], interval: 10 });
    const told: string[] = [];
    feed.subscribe(({ name, data }) => told.push(name === "charts" ? `charts ${JSON.stringify(data).length}` : name));
    await expect.poll(() => told[0]).toBe("page");
    const rows = sampleRun().events.filter(({ event }) => event === "step");
    for (const row of rows.slice(0, 3)) {
      const before = told.length;
      appendFileSync(join(run, "events.jsonl"), line(row));
      await expect.poll(() => told.slice(before).some((name) => /page|charts/.test(name))).toBe(true);
    }
    await feed.close();
    expect(told.at(-1)).toBe("end");
  });
});

test("what a run of another process does now is on its page, and that it was stopped", async () => {
  const run = join(folder, "elsewhere");
  mkdirSync(run);
  writeFileSync(
    join(run, "events.jsonl"),
    line({ ...sampleRun().events[0], event: "stage", label: "candidates of M0" }),
  );
  const stage = {
    label: "temporal 1 · candidates of M0",
    done: 25,
    total: 100,
    unit: "answers",
    left: 30,
    figures: { loss: 0.61234, "tokens/s": 999.7 },
  };
  const answers = [{ model: "M0", prompt: "Say <b>", text: "bold" }];
  const state = { at: Date.now(), stages: [stage], notes: [], memory: 197_000_000, answers };
  writeFileSync(join(run, "live.json"), JSON.stringify(state));
  const feed = new PageFeed({ folders: [run], interval: 10 });
  let status = "";
  feed.subscribe(({ name, data }) => {
    if (name === "status") status = (data as { html: string }).html;
  });
  await expect.poll(() => status).toContain("25 of 100 answers (25 %) · 30 s left · loss 0.612 · 1.00k tokens/s<");
  expect(status).toContain("Say &lt;b&gt;");
  expect(status).toContain("memory 197 MB");
  writeFileSync(join(run, "live.json"), JSON.stringify({ ...state, at: Date.now() - 60_000 }));
  await expect.poll(() => status).toContain("it was stopped");
  rmSync(join(run, "live.json"));
  await expect.poll(() => status).toContain("stopped in");
  await feed.close();
});

describe("runs side by side", () => {
  const [one, other] = [sampleRun(), sampleRun()];
  one.folder = "runs/one";
  other.folder = "runs/other";
  other.result.settings = { ...other.result.settings, loss: { beta: 0.1 } };

  test("are one run whose strategies are named after them", () => {
    const both = sideBySide([one, other]);
    expect(both.result.strategies.map(({ name }) => name)).toContain("other: temporal");
    expect(both.events).toHaveLength(2 * one.events.length);
    expect(new Set(both.pairs.map(({ strategy }) => strategy)).size).toBe(4);
  });

  test("say in which settings they differ", () => {
    expect(settingDifferences([one, other])).toEqual({
      names: ["one", "other"],
      rows: [{ setting: "loss.beta", values: ["0.3", "0.1"] }],
    });
  });
});
