import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { oracle, readLines, scratch } from "@tempora/testing";
import { expect, test } from "vitest";
import { tempora } from "./support/cli.ts";

const folder = await scratch();
const policy = oracle("llama", "policy");

function put(name: string, rows: readonly object[]): string {
  const file = join(folder, name);
  writeFileSync(file, rows.map((row) => `${JSON.stringify(row)}\n`).join(""));
  return file;
}

/** Sums of log-probs by row and side, with what was said meanwhile. */
async function scored(data: string, ...flags: string[]) {
  const out = join(folder, "scored.jsonl");
  const outcome = await tempora(["logprobs", "--model", policy, "--data", data, "--out", out, ...flags]);
  if (outcome.code !== 0) throw new Error(outcome.stderr);
  const rows = readLines<Record<string, number>>(out);
  return { sums: rows.map((row) => [row.chosen_sum, row.rejected_sum, row.completion_sum]), said: outcome.stderr };
}

const turn = (role: string, content: string) => ({ role, content });
const pairs = [
  { prompt: "Say hello.", chosen: "Hello.", rejected: "No." },
  { prompt: "Two\nlines?", chosen: 'A "b", c.', rejected: "None" },
];

test("columns of a CSV file, and shards in a folder, give the numbers of TRL's rows", async () => {
  const { sums } = await scored(put("trl.jsonl", pairs));
  const csv = join(folder, "pairs.csv");
  const quoted = (text: string) => `"${text.replaceAll('"', '""')}"`;
  const lines = pairs.map(({ prompt, chosen, rejected }) => [prompt, chosen, rejected].map(quoted).join(","));
  writeFileSync(csv, `q,good,bad\n${lines.join("\n")}\n`);
  expect((await scored(csv, "--columns", "prompt=q,chosen=good,rejected=bad")).sums).toEqual(sums);
  mkdirSync(join(folder, "shards"));
  pairs.forEach((pair, i) => {
    put(`shards/train-0000${i}-of-00002.jsonl`, [pair]);
  });
  expect((await scored(join(folder, "shards"))).sums).toEqual(sums);
});

test("rows of other tools give the numbers of the conversations that they stand for, and are named once", async () => {
  const asConversations = pairs.map(({ prompt, chosen, rejected }) => ({
    prompt: [turn("system", "Be brief."), turn("user", prompt)],
    chosen: [turn("assistant", chosen)],
    rejected: [turn("assistant", rejected)],
  }));
  const { sums, said } = await scored(put("conversations.jsonl", asConversations));
  expect(said).not.toContain("is read as");
  const alpaca = pairs.map(({ prompt, ...sides }) => ({
    instruction: prompt,
    input: "",
    system: "Be brief.",
    ...sides,
  }));
  const read = await scored(put("alpaca.jsonl", alpaca));
  expect(read.sums).toEqual(sums);
  expect(read.said.match(/alpaca\.jsonl is read as LLaMA-Factory's alpaca preferences/g)).toHaveLength(1);
  const sharegpt = pairs.map(({ prompt, chosen }) => ({
    system: "Be brief.",
    conversations: [
      { from: "human", value: prompt },
      { from: "gpt", value: chosen },
    ],
  }));
  const completions = asConversations.map(({ prompt, chosen: completion }) => ({ prompt, completion }));
  const ours = await scored(put("completions.jsonl", completions));
  expect((await scored(put("sharegpt.jsonl", sharegpt))).sums).toEqual(ours.sums);
});

test("a row that can be read in two ways ends the command with both, its file and its number", async () => {
  const data = put("two.jsonl", [pairs[0]!, { instruction: "i", question: "q", chosen: "c", rejected: "r" }]);
  const { code, stderr } = await tempora(["logprobs", "--model", policy, "--data", data, "--out", join(folder, "x")]);
  expect(code).toBe(1);
  expect(stderr).toMatch(
    /error: The row can be read in 2 ways: as LLaMA-Factory's alpaca .*, or as Axolotl's chatml\.intel/,
  );
  expect(stderr).toContain(`where: ${data}, row 2`);
});
