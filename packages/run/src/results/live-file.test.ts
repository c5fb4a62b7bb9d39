import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { scratch } from "@tempora/testing";
import { expect, test } from "vitest";
import { LiveFile, type LiveState } from "./live-file.ts";
import { silentObserver } from "./observer.ts";

const folder = await scratch();
const file = join(folder, "live.json");
const written = () => JSON.parse(readFileSync(file, "utf8")) as LiveState;

test("time left follows the pace since the stage was resumed", () => {
  let now = 0;
  using live = new LiveFile(folder, silentObserver, { clock: () => now });
  live.begin({ id: "a", label: "answers", total: 100, unit: "answers" });
  live.progress("a", 60);
  expect(live.state().stages[0]).toMatchObject({ done: 60, left: null });
  now = 10_000;
  live.progress("a", 80, { "tokens/s": 5 });
  expect(live.state().stages[0]).toMatchObject({ done: 80, left: 10, figures: { "tokens/s": 5 } });
  live.finish("a", { reused: false, seconds: 10 });
  expect(live.state().stages).toEqual([]);
});

test("the file tells what goes on until the run ends, the newest answers first", async () => {
  {
    using live = new LiveFile(folder, silentObserver, { interval: 5 });
    live.begin({ id: "a", label: "answers of M0", total: 9, unit: "answers" });
    for (let k = 1; k <= 6; k++) live.sampled("a", { model: "M0", prompt: `prompt ${k}`, text: "x".repeat(5000) });
    live.progress("a", 6);
    live.note("something");
    await expect.poll(() => written().stages[0]?.done).toBe(6);
    expect(written().answers.map(({ prompt }) => prompt)).toEqual(["prompt 6", "prompt 5", "prompt 4", "prompt 3"]);
    expect(written().answers[0]?.text.length).toBeLessThan(2000);
    expect(written()).toMatchObject({ notes: ["something"] });
    expect(Date.now() - written().at).toBeLessThan(10_000);
  }
  expect(existsSync(file)).toBe(false);
});
