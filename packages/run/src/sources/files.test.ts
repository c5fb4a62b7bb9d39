import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { judgeTemplateFile } from "../settings/judge-template.ts";
import { paperSettings, type Settings } from "../settings/settings.ts";
import { fileSource } from "./files.ts";

let folder: string;
let notes: string[];
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "tempora-files-"));
  await mkdir(join(folder, "model"));
  notes = [];
});
afterEach(() => rm(folder, { recursive: true, force: true }));

async function source(rows: readonly unknown[], over: Partial<Settings> = {}) {
  const prompts = join(folder, "prompts.jsonl");
  await writeFile(prompts, rows.map((row) => `${JSON.stringify(row)}\n`).join(""));
  return fileSource({ ...paperSettings, model: join(folder, "model"), prompts, ...over }, (text) => notes.push(text));
}

const numbered = (count: number) => Array.from({ length: count }, (_, k) => ({ prompt: `Question ${k}?` }));

describe("fileSource", () => {
  it("holds a fifth out and gives each iteration prompts of its own", async () => {
    const tasks = await source(numbered(50));
    expect(tasks.heldOut().length).toBe(10);
    const [first, second] = [tasks.training(0, 4000), tasks.training(1, 4000)];
    expect([first.length, second.length]).toEqual([20, 20]);
    expect(new Set([...first, ...second, ...tasks.heldOut()].map(({ id }) => id)).size).toBe(50);
    expect(notes).toEqual([]);
  });

  it("holds out what no seed and no order of the file changes, and shuffles the rest by the seed", async () => {
    const [one, same, other] = [
      await source(numbered(50)),
      await source(numbered(50).reverse()),
      await source(numbered(50), { seed: 7 }),
    ];
    const ids = (tasks: readonly { id: string }[]) => tasks.map(({ id }) => id);
    expect(ids(same.heldOut())).toEqual(ids(one.heldOut()));
    expect(ids(other.heldOut())).toEqual(ids(one.heldOut()));
    const texts = one.heldOut().map(({ text }) => text);
    expect(texts).not.toEqual(Array.from({ length: 10 }, (_, k) => `Question ${40 + k}?`));
    const order = (tasks: typeof one) => ids(tasks.training(0, 20));
    expect(order(other)).not.toEqual(order(one));
    expect(order(await source(numbered(50), { seed: 7 }))).toEqual(order(other));
  });

  it("says so when a further iteration must use prompts again", async () => {
    const tasks = await source(numbered(50));
    expect(tasks.training(2, 4000).map(({ id }) => id)).toEqual(tasks.training(0, 4000).map(({ id }) => id));
    expect(notes).toEqual([expect.stringContaining("Iteration 3 uses prompts again")]);
  });

  it("asks equal prompts once", async () => {
    const tasks = await source([...numbered(10), ...numbered(10)]);
    expect(tasks.training(0, 4).length + tasks.training(1, 4).length).toBe(8);
  });

  it("refuses a column that a function judge could not be given, by its first row, and keeps it for another judge", async () => {
    const rows = numbered(10).map((row, k) => (k === 3 ? { ...row, answers: ["x"] } : row));
    const judge = { ...paperSettings.judge, kind: "function" as const };
    await expect(source(rows, { judge })).rejects.toThrow(/column answers .*prompts\.jsonl, row 4, field answers/);
    await expect(source(rows)).resolves.toBeDefined();
  });

  it("keeps a row's other columns for the judge, and says where a repeated prompt brings others", async () => {
    const rows = [...numbered(10), ...numbered(3)].map((row, k) => ({ ...row, truth: k % 10 }));
    const judge = { ...paperSettings.judge, kind: "function" as const };
    const { training } = await source([...rows, { prompt: "Question 5?", truth: 99 }], { judge });
    for (const { text, columns } of training(0, 4)) expect(columns).toEqual({ truth: Number(/\d/.exec(text)?.[0]) });
    expect(notes).toEqual([expect.stringContaining("1 rows repeat a prompt with other columns")]);
  });

  it("uses a file of held-out prompts whole", async () => {
    const heldOutPrompts = join(folder, "held.jsonl");
    await writeFile(
      heldOutPrompts,
      numbered(30)
        .map((row) => `${JSON.stringify(row)}\n`)
        .join(""),
    );
    const evaluation = { ...paperSettings.evaluation, prompts: 10 };
    const tasks = await source(numbered(40), { heldOutPrompts, iterations: 1, evaluation });
    expect(tasks.heldOut().length).toBe(30);
    expect(tasks.training(0, 4000).length).toBe(10);
  });

  /** All tasks by the text that a judge is shown, wherever they were put. */
  const byText = (tasks: Awaited<ReturnType<typeof source>>) =>
    new Map([...tasks.training(0, 4000), ...tasks.heldOut()].map((task) => [task.text, task]));

  it("tells prompts with other tools or other variables of the template apart, and gives them to the model", async () => {
    const tool = { type: "function", function: { name: "river" } };
    const question = { prompt: "Name a river." };
    const kwargs = { chat_template_kwargs: { enable_thinking: false } };
    const rows = [question, { ...question, tools: [tool] }, { ...question, ...kwargs }, { ...question, ...kwargs }];
    const tasks = await source(rows, { iterations: 1 });
    const all = [...tasks.training(0, 4000), ...tasks.heldOut()];
    expect(new Set(all.map(({ id }) => id)).size).toBe(3);
    expect(all.map(({ variables }) => JSON.stringify(variables)).sort()).toEqual(
      [{}, { tools: [tool] }, { enable_thinking: false }].map((one) => JSON.stringify(one)).sort(),
    );
    expect(byText(tasks).has(`tools: ${JSON.stringify(tool)}\n\nName a river.`)).toBe(true);
  });

  it("puts the settings' system message and variables under those of the rows", async () => {
    const own = { role: "system", content: "Mine." };
    const rows = [
      { prompt: "One?" },
      { prompt: [own, { role: "user", content: "Two?" }], chat_template_kwargs: { enable_thinking: true } },
    ];
    const over = { iterations: 1, system: "Be brief.", chatTemplateKwargs: { enable_thinking: false } };
    const tasks = byText(await source(rows, over));
    const one = tasks.get("system: Be brief.\n\nuser: One?");
    const system = { role: "system", content: "Be brief." };
    expect(one).toMatchObject({
      prompt: [system, { role: "user", content: "One?" }],
      variables: { enable_thinking: false },
    });
    expect(tasks.get("system: Mine.\n\nuser: Two?")).toMatchObject({
      prompt: [own, { role: "user", content: "Two?" }],
      variables: { enable_thinking: true },
    });
    expect(one?.id).not.toBe(byText(await source(rows, { iterations: 1 })).get("One?")?.id);
  });

  it("takes held-out prompts from their own file and never trains on them", async () => {
    const heldOutPrompts = join(folder, "held.jsonl");
    await writeFile(heldOutPrompts, `${JSON.stringify({ prompt: "Question 3?" })}\n`);
    const tasks = await source(numbered(5), { heldOutPrompts, iterations: 1 });
    expect(tasks.heldOut().map(({ text }) => text)).toEqual(["Question 3?"]);
    expect(tasks.training(0, 9).map(({ text }) => text)).not.toContain("Question 3?");
  });

  it("reads prompts in the columns of well-known collections", async () => {
    const numbers = Array.from({ length: 30 }, (_, index) => index);
    for (const rows of [
      numbers.map((n) => ({ instruction: `Add one to ${n}.`, output: String(n + 1), generator: "g" })),
      numbers.map((n) => ({ question_id: n, turns: [`Add one to ${n}.`, "Again."] })),
      numbers.map((n) => ({ instruction: "Add one.", instances: [{ input: String(n), output: "" }] })),
    ]) {
      const tasks = await source(rows);
      expect(tasks.training(0, 5).every(({ text }) => /^Add one.*\d/s.test(text))).toBe(true);
    }
  });

  it("reads prompts from the columns that are named, and says what it took rows for", async () => {
    const prompts = join(folder, "prompts.csv");
    await writeFile(prompts, "q,input\nOne?,x\nTwo?,y\n");
    const settings = { ...paperSettings, model: join(folder, "model"), prompts, iterations: 1 };
    const named = await fileSource({ ...settings, columns: { prompt: "q" } }, (text) => notes.push(text));
    const texts = [...named.training(0, 9), ...named.heldOut()].map(({ text }) => text);
    expect(texts.sort()).toEqual(["One?", "Two?"]);
    expect(notes).toEqual([]);
    const recognised = await fileSource(settings, (text) => notes.push(text));
    const [asked] = [...recognised.training(0, 9), ...recognised.heldOut()].filter(({ text }) => text === "y");
    expect(asked?.prompt).toEqual([{ role: "user", content: "y" }]);
    expect(notes).toEqual([`${prompts} is read as OpenRLHF's input.`]);
  });

  it("names the row that lacks a prompt, and refuses a single prompt", async () => {
    await expect(source([{ prompt: "One?" }, { answer: "x" }])).rejects.toThrow(/prompts.jsonl, row 2, field prompt/);
    await expect(source([{ prompt: "One?" }])).rejects.toThrow(/There is only one prompt/);
  });

  it("refuses an empty prompt by its row", async () => {
    const rows = [...numbered(3), { prompt: "" }];
    await expect(source(rows)).rejects.toThrow(/prompt is empty .*prompts.jsonl, row 4, field prompt/);
  });

  it("says so where fewer prompts are held out than are asked for", async () => {
    await source(numbered(50), { evaluation: { ...paperSettings.evaluation, prompts: 30 } });
    expect(notes).toEqual([expect.stringContaining("10 prompts are held out instead of 30")]);
  });

  it("refuses token ids: a judge reads text", async () => {
    await expect(source([{ prompt_ids: [1] }, { prompt_ids: [2] }])).rejects.toThrow(/needs text/);
  });

  it("judges by the template that the checkpoint carries, else by that of the kind of judge", async () => {
    expect((await source(numbered(5))).judgeTemplate).toBeNull();
    const template = { name: "mine", text: "{prompt} / {response} Score:", maxScore: 5 };
    await writeFile(join(folder, "model", judgeTemplateFile), JSON.stringify(template));
    expect((await source(numbered(5))).judgeTemplate).toEqual(template);
    await writeFile(join(folder, "model", judgeTemplateFile), "{}");
    await expect(source(numbered(5))).rejects.toThrow(/tempora_judge.json/);
  });
});
