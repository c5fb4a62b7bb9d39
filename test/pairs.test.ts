import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { readLines, scratch } from "@tempora/testing";
import { Tokenizer } from "@tempora/text";
import { expect, test } from "vitest";
import { saveByteModel } from "./support/byte-model.ts";
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

test("ids travel into the pairs, with a flag where the text does not give them again", async () => {
  const completion = (score: number, ids: number[], more: object = {}) => ({
    text: `answer ${score}`,
    ids,
    score,
    ...more,
  });
  const row = (content: string, completions: object[], more: object = { prompt_ids: [1, 2] }) =>
    `${JSON.stringify({ prompt: [{ role: "user", content }], ...more, completions })}\n`;
  const data = join(folder, "with-ids.jsonl");
  const rows = [
    row("same", [completion(5, [3, 4]), completion(1, [5])]),
    row("other", [completion(5, [6], { text_differs: true }), completion(1, [7])]),
    row("text only", [completion(5, [3]), completion(1, [5])], {}),
    row("cut off", [completion(5, [8], { finish_reason: "length" }), completion(4, [9]), completion(1, [5])]),
  ];
  writeFileSync(data, rows.join(""));
  const args = ["pairs", "--data", data, "--out", out, "--strategy", "self-rewarding"];
  const result = await tempora([...args, "--json"]);
  expect(JSON.parse(result.stdout)).toMatchObject({ pairs: 4, truncated: 1, answers: 9, text_differs: 1 });
  const written = readLines<Record<string, unknown>>(out);
  expect(written.map((one) => [one.prompt_ids, one.chosen_ids, one.rejected_ids, one.text_differs])).toEqual([
    [[1, 2], [3, 4], [5], undefined],
    [[1, 2], [6], [7], true],
    [undefined, undefined, undefined, undefined],
    [[1, 2], [9], [5], undefined],
  ]);
  expect(result.stderr).not.toContain("warning");
  await temporaJson([...args, "--truncated", "keep"]);
  expect(readLines<Record<string, unknown>>(out)[3]?.chosen_ids).toEqual([8]);
});

test("generate flags an answer whose text does not give its ids again", async () => {
  const model = await saveByteModel(join(folder, "bytes"));
  const [data, answers] = [join(folder, "prompt.jsonl"), join(folder, "answers.jsonl")];
  writeFileSync(data, `${JSON.stringify({ prompt: [{ role: "user", content: "Say a." }] })}\n`);
  // Random bytes, of which most are no UTF-8, and an end here and there.
  const sampling = ["--n", "4000", "--max-new-tokens", "2", "--temperature", "1", "--threads", "1"];
  await temporaJson(["generate", "--model", model, "--data", data, "--out", answers, ...sampling]);
  const [row] = readLines<{ completions: { text: string; ids: number[]; text_differs?: true }[] }>(answers);
  const tokenizer = await Tokenizer.load(model);
  const end = tokenizer.eosId as number;
  const told = new Set<boolean>();
  for (const { text, ids, text_differs } of row?.completions ?? []) {
    // The text is trained on with an end.
    const again = [...tokenizer.encodePlain(text), end];
    const same = ids.length === again.length && ids.every((id, k) => id === again[k]);
    expect(text_differs, JSON.stringify({ text, ids })).toBe(same ? undefined : true);
    told.add(same);
  }
  expect(told).toEqual(new Set([true, false]));
});

test("many truncated answers are warned of, and other ids for the same prompt refused", async () => {
  const file = (name: string, promptIds: number[]) => {
    const completions = [5, 3, 1, 0].map((score, k) => ({
      text: `${name} ${k}`,
      ids: [k],
      score,
      finish_reason: k < 2 ? "length" : "stop",
    }));
    const path = join(folder, `${name}.jsonl`);
    writeFileSync(path, `${JSON.stringify({ prompt: "x", prompt_ids: promptIds, completions })}\n`);
    return path;
  };
  const data = file("cut", [1]);
  const args = ["pairs", "--data", data, "--out", out];
  const { stderr } = await tempora([...args, "--strategy", "self-rewarding"]);
  expect(stderr).toMatch(/warning: 2 of 4 answers \(50 %\) were cut off by length and left out of the pairs/);
  const refused = await tempora([...args, "--past", file("foreign", [2])]);
  expect(refused.stderr).toMatch(
    /different token ids for this prompt.*\nwhere: .*foreign\.jsonl, row 1, field prompt_ids/,
  );
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
  expect(none.stderr).toMatch(/No pair was formed: 1 tie\n.*\nremedy: .*equal scores/);
  const cut = [
    { text: "a", score: 3, finish_reason: "length" },
    { text: "b", score: 1, finish_reason: "stop" },
  ];
  writeFileSync(other, `${JSON.stringify({ prompt: "x", completions: cut })}\n`);
  const short = await tempora(["pairs", "--data", other, "--out", out]);
  expect(short.stderr).toMatch(/No pair was formed: 1 truncated\n.*\nremedy: .*--max-new-tokens/);
});
