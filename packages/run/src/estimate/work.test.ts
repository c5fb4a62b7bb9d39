import { createWorld } from "@tempora/world";
import { describe, expect, it } from "vitest";
import { attendedPositions, forwardFlops } from "../results/ledger.ts";
import type { Task } from "../sources/source.ts";
import { tokenizerFrom } from "../stages/start.ts";
import { StageWork, type TaskLengths, taskLengths } from "./work.ts";

const world = createWorld({ seed: 0 });
const config = world.modelConfig();
const work = new StageWork(config);

/** Two prompts that share their first two tokens. */
const tasks: TaskLengths[] = [
  { promptIds: [1, 2, 3], answer: 5, judge: { prefix: [7, 8, 9], after: 4 } },
  { promptIds: [1, 2, 4, 5], answer: 6, judge: { prefix: [7, 8, 10, 11], after: 3 } },
];
const flops = (tokens: number, attended: number, headRows: number) =>
  forwardFlops(config, { tokens, attended, headRows });
/** Positions that a prompt and two answers behind it look at. */
const looks = (prompt: number, answer: number) =>
  attendedPositions(config, 0, prompt) + 2 * attendedPositions(config, prompt, answer);

describe("the work of a stage", () => {
  it("of pairs is a prompt and two answers, each in every epoch and every pass", () => {
    const tokens = 3 + 2 * 5 + 4 + 2 * 6;
    const pass = flops(tokens, looks(3, 5) + looks(4, 6), 2 * 5 + 2 * 6);
    expect(work.scoredPairs(tasks)).toMatchObject({ scoredTokens: tokens, flops: pass, trainedTokens: 0 });
    const trained = work.trainedPairs(tasks, { epochs: 2, passes: 3, replayedTokens: 10 });
    expect(trained).toMatchObject({ trainedTokens: 2 * tokens + 10, flops: 3 * (2 * pass + flops(10, 0, 10)) });
  });

  it("of answers reads once what prompts share, and decodes every sample to its end", () => {
    const { read, decoded } = work.answers(tasks, 7);
    expect(read.promptTokens).toBe(2 + 1 + 2);
    expect(decoded.generatedTokens).toBe(7 * (5 + 6));
    expect(work.answers([], 7).read.promptTokens).toBe(0);
  });

  it("of judgements in words reads every answer and decodes as many tokens as have room", () => {
    const options = { responses: 2, judgements: 3, tokens: 20 };
    const { read, decoded } = work.sampled(tasks, options);
    expect(read.promptTokens).toBe(2 + 1 + 2 + 2 * (5 + 4) + 2 * (6 + 3));
    expect(decoded.judgedTokens).toBe(2 * 2 * 3 * 20);
    const tight = new StageWork({ ...config, maxPositions: 20 });
    // The first question takes 12 tokens, the second 13.
    expect(tight.sampled(tasks, options).decoded.judgedTokens).toBe(2 * 3 * (8 + 7));
    expect(work.sampled([{ ...tasks[0]!, judge: null }], options).read.promptTokens).toBe(0);
  });
});

it("an answer is as long as it may be, and has room", async () => {
  const tokenizer = await tokenizerFrom(world.tokenizerFiles());
  const task: Task = { id: "t", text: "p", prompt: "sort : c a b", columns: {} };
  const lengths = (maxNewTokens: number, maxPositions: number) =>
    taskLengths(task, { tokenizer, template: null, maxNewTokens, maxPositions, now: new Date(0) });
  const { promptIds, answer, judge } = lengths(8, 64);
  expect([answer, judge]).toEqual([8, null]);
  expect(lengths(100, 64).answer).toBe(64 - promptIds.length);
});
