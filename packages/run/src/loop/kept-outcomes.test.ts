import { appendFile, readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { scratch } from "@tempora/testing";
import { beforeAll, describe, expect, it } from "vitest";
import { type Observer, silentObserver } from "../results/observer.ts";
import type { Settings } from "../settings/settings.ts";
import { cleanStore, storeOf } from "../store/inventory.ts";
import { type RunOutcome, runLoop } from "./loop.ts";
import { artifacts, tinySettings } from "./tiny.ts";

const runs = await scratch();
const store = storeOf(runs);

async function start(over: Partial<Settings> = {}, run = "run"): Promise<RunOutcome & { notes: string[] }> {
  const notes: string[] = [];
  const observer: Observer = { ...silentObserver, note: (text) => notes.push(text) };
  const tiny = tinySettings();
  const few = { ...tiny.sampling, maxNewTokens: 4 };
  const settings: Settings = { ...tiny, iterations: 1, baselines: [], sampling: few, ...over };
  settings.selection = { ...settings.selection, truncated: over.selection?.truncated ?? "keep" };
  return { ...(await runLoop({ config: { run, runs, settings }, observer, codeVersion: "test" })), notes };
}

/** Removes the rows of every stage whose rows are no events. */
async function removeRows(): Promise<number> {
  const names = await readdir(store, { recursive: true });
  const logs = names.filter((name) => name.endsWith(".jsonl") && !name.endsWith("metrics.jsonl"));
  for (const name of logs) await rm(join(store, name));
  return logs.length;
}

async function removeOutcomes(): Promise<void> {
  for (const kind of ["iteration", "evaluation"]) await rm(join(store, kind), { recursive: true });
}

describe("a finished run that is started again", () => {
  let first: RunOutcome & { notes: string[] };
  let reference: Record<string, string>;
  const all = () => ({ computed: 0, reused: first.stages.computed + first.stages.reused });

  beforeAll(async () => {
    first = await start();
    reference = await artifacts(first.folder);
  }, 300_000);

  it("makes a file anew that was edited or is gone", async () => {
    await appendFile(join(first.folder, "iterations/1/candidates.jsonl"), "{}\n");
    await rm(join(first.folder, "evaluation/M1.jsonl"));
    expect((await start()).stages).toEqual(all());
    expect(await artifacts(first.folder)).toEqual(reference);
  });

  it("goes on from a store that knows no outcomes", async () => {
    await removeOutcomes();
    expect((await start()).stages).toEqual(all());
    expect(await artifacts(first.folder)).toEqual(reference);
    expect(await readdir(join(store, "iteration"))).toHaveLength(1);
  });

  it("looks at the stages again when one of them is gone", async () => {
    const [judged] = await readdir(join(store, "preference-training"));
    await rm(join(store, "preference-training", judged as string), { recursive: true });
    expect((await start()).stages.computed).toBe(1);
    expect(await artifacts(first.folder)).toEqual(reference);
  });

  it("is another one with another setting", async () => {
    const other = await start({ selection: { ...tinySettings().selection, truncated: "drop" } }, "other");
    const [phase] = other.result.strategies[0]?.iterations[0]?.phases ?? [];
    expect(phase?.pairs).not.toBe(first.result.strategies[0]?.iterations[0]?.phases[0]?.pairs);
    // What it says of its results it says again.
    const said = other.notes.filter((text) => text.includes("were cut off by length"));
    expect(said.length).toBeGreaterThan(0);
    const selection = { ...tinySettings().selection, truncated: "drop" as const };
    // How fast the machine is now it says, too.
    const untimed = (notes: readonly string[]) => notes.filter((text) => !text.startsWith("Time: "));
    expect(untimed((await start({ selection }, "other")).notes)).toEqual(untimed(other.notes));
  });

  it("reads no rows, and the store is cleaned of nothing that it asks for", async () => {
    const { stages } = await cleanStore(store, { pretend: false });
    expect(stages).toEqual([]);
    expect(await removeRows()).toBeGreaterThan(8);
    expect((await start()).stages).toEqual(all());
    expect(await artifacts(first.folder)).toEqual(reference);
    // Without the outcome they are wanted, and what is missing is named.
    await removeOutcomes();
    await expect(start()).rejects.toThrow(/Cannot read the stage's rows.*\.jsonl/);
  });
});
