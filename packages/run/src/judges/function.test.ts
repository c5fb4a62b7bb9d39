import { readFile, truncate } from "node:fs/promises";
import { join } from "node:path";
import { defaultCollapseLimits } from "@tempora/preferences";
import { scratch } from "@tempora/testing";
import { describe, expect, it } from "vitest";
import type { JudgeBatch, JudgeFunction } from "../settings/judge-settings.ts";
import { functionJudge } from "./function.ts";
import { type Judge, type Judgement, type Response, readJudgements } from "./judge.ts";
import { mixedJudge } from "./mixed.ts";
import { responsesTo } from "./testing/tiny-judge.ts";
import { refuseCollapsed } from "./verdicts.ts";

const responses = responsesTo(["One?", "Seven?"], ["a", "bb", "ccc"]);

function judgeOf(score: JudgeFunction["score"], over: Partial<JudgeFunction> = {}): Judge {
  return functionJudge({ name: "length", score, weight: 1, range: [0, 1], version: "1", ...over });
}

async function judgements(judge: Judge, list: readonly Response[] = responses, folder?: string): Promise<Judgement[]> {
  const place = folder ?? (await scratch());
  const { rows } = await judge.judge(list, { folder: place, signal: undefined, limits: null, progress() {} });
  const all: Judgement[] = [];
  for await (const judgement of readJudgements(place, rows)) all.push(judgement);
  return all;
}

const lengths = ({ answers }: JudgeBatch) => answers.map((answer) => answer.length);

describe("a judge that is a function", () => {
  it("is given prompts, answers and the rows' other columns, one an answer", async () => {
    const batches: JudgeBatch[] = [];
    const judge = judgeOf((batch) => {
      batches.push(batch);
      return lengths(batch);
    });
    expect((await judgements(judge)).map(({ score }) => score)).toEqual([1, 2, 3, 1, 2, 3]);
    expect(batches).toEqual([
      {
        prompts: ["One?", "One?", "One?", "Seven?", "Seven?", "Seven?"],
        answers: ["a", "bb", "ccc", "a", "bb", "ccc"],
        truth: [4, 4, 4, 6, 6, 6],
      },
    ]);
  });

  it("may be asynchronous and may leave an answer without a score", async () => {
    const judge = judgeOf(async ({ answers }) => answers.map((answer) => (answer === "bb" ? null : 1)));
    expect((await judgements(judge)).map(({ score, failure }) => score ?? failure)).toEqual([
      ...[1, "no-score", 1],
      ...[1, "no-score", 1],
    ]);
  });

  it("judges only what an interrupted call did not", async () => {
    const many = responsesTo(
      Array.from({ length: 50 }, (_, k) => `Prompt ${k}`),
      ["a", "bb", "ccc"],
    );
    const folder = await scratch();
    const whole = await judgements(judgeOf(lengths), many, folder);
    const file = join(folder, "judgements.jsonl");
    const bytes = await readFile(file);
    await truncate(file, Math.floor(bytes.length / 2));
    let asked = 0;
    const counting = judgeOf((batch) => {
      asked += batch.answers.length;
      return lengths(batch);
    });
    expect(await judgements(counting, many, folder)).toEqual(whole);
    expect(await readFile(file)).toEqual(bytes);
    expect(asked).toBeLessThan(many.length * 0.6);
  });

  it.each([
    ["the number of scores", () => [1, 2], /given 6 answers and returned 2 scores/],
    ["no list", () => 3 as never, /returned number/],
    [
      "a score that is not finite",
      ({ answers }: JudgeBatch) => answers.map(() => Number.NaN),
      /gave NaN as the score of the answer "a" \(prompts\.jsonl, row 1\)/,
    ],
    [
      "a score that is text",
      ({ answers }: JudgeBatch) => answers.map((answer, k) => (k < 4 ? 1 : (`${answer}!` as never))),
      /gave the string "bb!" as the score of the answer "bb" \(prompts\.jsonl, row 2\).*as by Number\(text\)/,
    ],
    [
      "a score that is an object",
      ({ answers }: JudgeBatch) => answers.map(() => ({ score: 5 }) as never),
      /gave the object \{"score":5\} as the score/,
    ],
    [
      "a score that is missing",
      ({ answers }: JudgeBatch) => answers.map(() => undefined as never),
      /gave undefined as/,
    ],
    [
      "an error",
      () => {
        throw new Error("no such test");
      },
      /failed on rows 1 to 2 of prompts\.jsonl: no such test/,
    ],
  ])("is told what is wrong with it and where: %s", async (_, score, message) => {
    await expect(judgements(judgeOf(score as JudgeFunction["score"]))).rejects.toThrow(message);
  });

  it("is waited for no longer when the signal comes, and what it said before is kept", async () => {
    const many = responsesTo(
      Array.from({ length: 50 }, (_, k) => `Prompt ${k}`),
      ["a", "bb", "ccc"],
    );
    const folder = await scratch();
    const controller = new AbortController();
    let calls = 0;
    const judge = judgeOf((batch) => {
      if (++calls === 1) return lengths(batch);
      setTimeout(() => controller.abort(new Error("stopped by SIGTERM")), 1);
      return new Promise<never>(() => {});
    });
    const work = { folder, signal: controller.signal, limits: null, progress() {} };
    await expect(judge.judge(many, work)).rejects.toThrow("stopped by SIGTERM");
    const kept = (await readFile(join(folder, "judgements.jsonl"), "utf8")).split("\n").length - 1;
    expect(kept).toBe(64);
  });

  it("refuses a column that would hide its own arguments, and a function that no key can tell from another", async () => {
    const [first] = responses as [Response];
    const list = [{ ...first, columns: { answers: ["x"] } }];
    await expect(judgements(judgeOf(lengths), list)).rejects.toThrow(/column answers .*row 1, field answers/s);
    expect(() => functionJudge({ name: "mine", score: lengths, weight: 1, range: [0, 1] })).toThrow(/names no version/);
  });
});

describe("a weighted sum of judges", () => {
  const short = judgeOf(({ answers }) => answers.map((answer) => -answer.length), { name: "short", range: [-4, 0] });
  const known = judgeOf(({ answers }) => answers.map((answer) => (answer === "a" ? null : answer === "bb" ? 1 : 0)), {
    name: "known",
  });

  it("puts each part on one scale, keeps its own score, and has none where a part has none", async () => {
    const judge = mixedJudge(
      [
        { name: "short", weight: 1, judge: short },
        { name: "known", weight: 3, judge: known },
      ],
      "mean",
    );
    expect(judge.scale).toEqual({ min: 0, max: 1 });
    const all = await judgements(judge, responses.slice(0, 3));
    expect(all.map(({ score, parts }) => [score, parts])).toEqual([
      [null, { short: -1, known: null }],
      [(0.5 + 3) / 4, { short: -2, known: 1 }],
      [0.25 / 4, { short: -3, known: 0 }],
    ]);
  });

  it("takes a negative weight for a penalty", async () => {
    const judge = mixedJudge(
      [
        { name: "short", weight: -1, judge: short },
        { name: "known", weight: 1, judge: known },
      ],
      "mean",
    );
    expect(judge.scale).toEqual({ min: -0.5, max: 0.5 });
    expect((await judgements(judge, responses.slice(1, 2)))[0]?.score).toBe(0.25);
  });

  it("does not see a part of weight 0, also where that part has no score, and keeps the part's score", async () => {
    const judge = mixedJudge(
      [
        { name: "short", weight: 2, judge: short },
        { name: "known", weight: 0, judge: known },
      ],
      "mean",
    );
    expect(judge.scale).toEqual({ min: 0, max: 1 });
    const all = await judgements(judge, responses.slice(0, 2));
    expect(all.map(({ score, parts }) => [score, parts])).toEqual([
      [0.75, { short: -1, known: null }],
      [0.5, { short: -2, known: 1 }],
    ]);
  });

  it("has another identity when a part's version or weight is another", () => {
    const of = (version: string, weight: number) =>
      JSON.stringify(mixedJudge([{ name: "a", weight, judge: judgeOf(lengths, { version }) }], "mean").identity);
    expect(of("1", 1)).toBe(of("1", 1));
    expect(new Set([of("1", 1), of("2", 1), of("1", 2)]).size).toBe(3);
  });
});

describe("a judge that has collapsed", () => {
  it("is told what helps its kind", () => {
    const audited = Array.from({ length: 40 }, (_, k) => ({ prompt: `${k >> 1}`, verdicts: [0] }));
    const refused = (kind: "sampled" | "expected" | "function") => () =>
      refuseCollapsed({ kind, name: "J", origin: "o", scale: { min: 0, max: 1 } }, audited, defaultCollapseLimits);
    expect(refused("function")).toThrow(/J is of no use here: of 40 scores 100\.0 % are the same.*judge\.quality/s);
    expect(refused("expected")).toThrow(/judge\.template/);
    expect(refused("sampled")).toThrow(/graded examples/);
  });
});
