import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { readLines, scratch } from "@tempora/testing";
import { expect, test } from "vitest";
import { tempora, temporaJson } from "./support/cli.ts";

const folder = await scratch();
const out = join(folder, "pairs.jsonl");

/** A judged file: one row for each list of scores. */
function judged(name: string, scores: readonly (number | null)[][]): string {
  const file = join(folder, `${name}.jsonl`);
  const rows = scores.map((list, index) => ({
    prompt: [{ role: "user", content: `question ${index}` }],
    completions: list.map((score, sample) => ({ text: `${name} ${index}.${sample}`, ids: [1, 2], score })),
  }));
  writeFileSync(file, rows.map((row) => `${JSON.stringify(row)}\n`).join(""));
  return file;
}

interface Row {
  prompt: unknown;
  chosen: { content: string }[];
  rejected: { content: string }[];
  chosen_role: string;
  rejected_role: string;
}

const sides = () => readLines<Row>(out).map((row) => [row.chosen[0]?.content, row.rejected[0]?.content]);

test("self-rewarding takes the best and the worst, and counts the ties it drops", async () => {
  const data = judged("current", [
    [3, 1, 5],
    [2, 2],
    [null, 4, null],
    [null, null],
  ]);
  const args = ["pairs", "--data", data, "--out", out, "--strategy", "self-rewarding"];
  const result = await temporaJson<{ pairs: number; dropped: Record<string, number> }>(args);
  expect(result).toMatchObject({ pairs: 1, dropped: { tie: 2, "no-scores": 1 } });
  expect(sides()).toEqual([["current 0.2", "current 0.1"]]);
});

test("temporal rejects from the past and chooses from the future, only where they are strictly better", async () => {
  const data = judged("current", [
    [3, 2],
    [4, 0],
  ]);
  const past = judged("past", [
    [1, 5],
    [0, 1],
  ]);
  const future = judged("future", [
    [4, 1],
    [4, 4],
  ]);
  const args = ["pairs", "--data", data, "--past", past, "--out", out, "--strategy", "temporal"];
  await temporaJson(args);
  expect(sides()).toEqual([
    ["current 0.0", "past 0.0"],
    ["current 1.0", "current 1.1"],
  ]);
  await temporaJson([...args, "--future", future]);
  expect(sides()).toEqual([
    ["future 0.0", "past 0.0"],
    ["current 1.0", "current 1.1"],
  ]);
  expect(readLines<Row>(out)[0]).toMatchObject({ chosen_role: "future", rejected_role: "past" });
});

test("faults are told with file, row and field", async () => {
  const data = judged("current", [[3, 1]]);
  const other = join(folder, "other.jsonl");
  writeFileSync(other, `${JSON.stringify({ prompt: "else", completions: [{ text: "a", score: 1 }] })}\n`);
  const args = ["pairs", "--data", data, "--out", out];
  const stderr = async (...more: string[]) => {
    const outcome = await tempora([...args, ...more]);
    expect(outcome.code).toBe(1);
    return outcome.stderr;
  };
  expect(await stderr("--past", other)).toMatch(/same prompts.*\nwhere: .*other\.jsonl, row 1/);
  expect(await stderr("--phase", "2")).toContain("needs completions of the future model");
  expect(await stderr("--strategy", "past-only", "--phase", "2")).toContain("has no phase 2");
  writeFileSync(other, `${JSON.stringify({ prompt: "x", completions: [{ text: "a" }] })}\n`);
  const unjudged = await tempora(["pairs", "--data", other, "--out", out]);
  expect(unjudged.stderr).toContain("row 1, field completions[0].score");
  const tied = judged("tied", [[2, 2]]);
  const none = await tempora(["pairs", "--data", tied, "--out", out]);
  expect(none.code).toBe(1);
  expect(none.stderr).toContain("No pair was formed: 1 tie");
});
