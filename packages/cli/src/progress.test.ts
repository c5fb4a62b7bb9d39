import { PassThrough } from "node:stream";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { formatBytes, formatCount, formatDuration } from "./format.ts";
import { runObserver } from "./observer.ts";
import { Progress } from "./progress.ts";

beforeEach(() => {
  vi.useFakeTimers({ toFake: ["performance"] });
});
afterEach(() => {
  vi.useRealTimers();
});

function plainProgress(): { progress: Progress; text(): string } {
  const stream = new PassThrough();
  const text = () => {
    let all = "";
    for (let chunk = stream.read(); chunk !== null; chunk = stream.read()) all += chunk;
    return all;
  };
  return { progress: new Progress(stream as unknown as NodeJS.WriteStream), text };
}

test("without a terminal a stage says now and then how far it is, how fast, and how long it still takes", () => {
  const { progress, text } = plainProgress();
  const stage = progress.stage("generate", 400, "answers");
  vi.advanceTimersByTime(1000);
  stage.update(10);
  expect(text()).toBe("");
  vi.advanceTimersByTime(9500);
  stage.update(105, "2000 tokens/s");
  expect(text()).toBe("generate: 105/400 answers · 10 answers/s · 30 s left · 2000 tokens/s\n");
  vi.advanceTimersByTime(29_500);
  stage.update(400, "2000 tokens/s");
  text();
  stage.finish();
  expect(text()).toBe("generate: 400 answers in 40 s (10 answers/s) · 2000 tokens/s\n");
});

test("without a terminal a stage also says how far it is while its work tells nothing", () => {
  vi.useFakeTimers({ toFake: ["performance", "setInterval", "clearInterval"] });
  const { progress, text } = plainProgress();
  const stage = progress.stage("judge", 80, "judgements");
  stage.update(0);
  vi.advanceTimersByTime(25_000);
  expect(text()).toBe("judge: 0/80 judgements · 10 s so far\njudge: 0/80 judgements · 20 s so far\n");
  progress.note("a note");
  vi.advanceTimersByTime(10_000);
  expect(text()).toBe("a note\njudge: 0/80 judgements · 30 s so far\n");
  stage.finish();
  text();
  vi.advanceTimersByTime(100_000);
  expect(text()).toBe("");
});

test("work that a resumed stage found done does not count into the rate", () => {
  const { progress, text } = plainProgress();
  const stage = progress.stage("judge", 1000, "rows");
  stage.update(900);
  vi.advanceTimersByTime(20_000);
  stage.update(920);
  expect(text()).toBe("judge: 920/1000 rows · 1 rows/s · 1 min 20 s left\n");
});

test("a stage whose first progress is its last says how long it took, of one thing in the singular", () => {
  const { progress, text } = plainProgress();
  const observer = runObserver(progress);
  observer.begin({ id: "a", label: "reference", total: 1, unit: "pairs" });
  vi.advanceTimersByTime(3000);
  observer.progress("a", 1);
  observer.finish("a", { reused: false, seconds: 3 });
  expect(text()).toBe("reference: 1 pair in 3.0 s\n");
});

test("a run's stages are told once when they are reused, with figures when they are computed", () => {
  const { progress, text } = plainProgress();
  const observer = runObserver(progress);
  observer.begin({ id: "a", label: "candidates of M0", total: 9, unit: "answers" });
  observer.finish("a", { reused: true, seconds: 0 });
  expect(text()).toBe("candidates of M0: reused\n");
  observer.begin({ id: "b", label: "train M1", total: 2, unit: "steps" });
  observer.progress("b", 1, { loss: 0.61234 });
  vi.advanceTimersByTime(4000);
  observer.progress("b", 2, { loss: 0.5 });
  observer.finish("b", { reused: false, seconds: 4 });
  expect(text()).toMatch(/^train M1: 2 steps in 4\.0 s .*loss 0\.500\n$/);
});

test("numbers are short and keep their meaning", () => {
  expect([0.4249, 31, 1234, 12_345, 3_400_000, 100].map(formatCount)).toEqual([
    "0.42",
    "31",
    "1234",
    "12.3k",
    "3.4M",
    "100",
  ]);
  expect([0.84, 42, 185, 7860].map(formatDuration)).toEqual(["0.8 s", "42 s", "3 min 5 s", "2 h 11 min"]);
  expect([100, 12 * 2 ** 20, 1.4 * 2 ** 30].map(formatBytes)).toEqual(["100 B", "12 MiB", "1.4 GiB"]);
});
