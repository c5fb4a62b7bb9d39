import { failure } from "@tempora/testing";
import { describe, expect, test } from "vitest";
import { completionRow, promptRow } from "./rows.ts";
import { tokenizeCompletion, tokenizePrompt } from "./tokenize.ts";
import { ContextFit, TooLongError } from "./too-long.ts";

const prompt = (row: number, length: number) =>
  promptRow({ row, value: { prompt_ids: Array.from({ length }, () => 1) } }, "rows.jsonl");

describe("rows that the context has no room for", () => {
  test("a prompt must leave room for the longest answer", async () => {
    const options = { maxLength: 10, reserve: 4 };
    expect(tokenizePrompt(prompt(1, 6), null, options).promptIds).toHaveLength(6);
    const error = await failure(() => tokenizePrompt(prompt(2, 7), null, options));
    expect(error).toBeInstanceOf(TooLongError);
    expect(error.message).toBe(
      "The prompt has 7 tokens, which leaves no room for the 4 new ones asked for in a context of 10 " +
        "(rows.jsonl, row 2, field prompt). Shorten it, ask for fewer new tokens (--max-new-tokens), leave out such " +
        "rows (--skip-too-long), or take a model with a longer context.",
    );
  });

  test("are left out and counted where that is asked for, with the first one's place", () => {
    const fit = new ContextFit(true);
    const kept = [3, 12, 4, 30].map((length, i) =>
      fit.keep(() => tokenizePrompt(prompt(i + 1, length), null, { maxLength: 10 })),
    );
    expect(kept.map((one) => one?.promptIds.length ?? null)).toEqual([3, null, 4, null]);
    expect(fit.skipped).toBe(2);
    expect(fit.first).toEqual({ file: "rows.jsonl", row: 2, field: "prompt" });
    expect(fit.summary("rows")).toBe(
      "2 of the rows are left out. The first: The prompt has 12 tokens, which leaves no room in a context of 10 " +
        "(rows.jsonl, row 2, field prompt)",
    );
    expect(() => fit.requireSome(2)).not.toThrow();
    expect(() => fit.requireSome(0)).toThrow(TooLongError);
  });

  test("end the work otherwise, and other faults always do", () => {
    expect(() => new ContextFit(false).keep(() => tokenizePrompt(prompt(1, 12), null, { maxLength: 10 }))).toThrow(
      TooLongError,
    );
    const foreign = completionRow({ row: 1, value: { prompt_ids: [9], completion_ids: [1] } }, "rows.jsonl");
    expect(() => new ContextFit(true).keep(() => tokenizeCompletion(foreign, null, { vocabSize: 5 }))).toThrow(
      "outside the vocabulary",
    );
  });
});
