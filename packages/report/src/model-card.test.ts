import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { scratch } from "@tempora/testing";
import { expect, test } from "vitest";
import { modelCard, originOf } from "./model-card.ts";
import { sampleRun } from "./testing/sample-run.ts";

test("the card of a run's model holds its figures and settings, and nothing of this machine", () => {
  const { result } = sampleRun();
  const settings = {
    model: "models/base.gguf",
    strategy: "temporal",
    prompts: "/home/me/p.jsonl",
    loss: { beta: 0.3 },
  };
  const card = modelCard({
    name: "Mine",
    format: "a GGUF file in Q8_0",
    origin: { result: { ...result, settings }, model: "M2" },
  });
  expect(card).toMatch(/^---\npipeline_tag: text-generation\ntags: \[tempora, gguf, dpo/);
  expect(card).toContain("M2 of a run of");
  expect(card).toContain("began with base.gguf");
  expect(card).toMatch(/win rate vs M0/);
  expect(card).toContain("| loss.beta | 0.3 |");
  expect(card).not.toMatch(/home|base_model/);
});

/** The card of a model of the sample's run, with these settings. */
function cardOf(
  settings: Record<string, unknown>,
  changes: Partial<ReturnType<typeof sampleRun>["result"]> = {},
): string {
  const { result } = sampleRun();
  const origin = { result: { ...result, settings, ...changes }, model: "M2" };
  return modelCard({ name: "Mine", format: "a Hugging Face folder in bf16", origin });
}

test("what the run began with is the hub's where it is a name there, and a name else", () => {
  const hub = cardOf({ model: "org/base@v1", strategy: "temporal" });
  expect(hub).toMatch(/^---\nbase_model: "org\/base"\nlibrary_name: transformers\n/);
  expect(hub).toContain("began with org/base:");
  expect(hub).toContain("temporal-self-rewarding]");
  for (const model of ["./org/base", "../base", "org/base.gguf", "a/folder/base"]) {
    expect(cardOf({ model }), model).not.toContain("base_model");
  }
  expect(cardOf({ model: null, strategy: "self-rewarding" })).toMatch(
    /tags: \[tempora, dpo, self-rewarding\]\n[\s\S]*began with a small model that the run itself trained/,
  );
});

test("who measured the figures is said", () => {
  expect(cardOf({}, { graded: true })).toContain("measured by a program that knows the true score");
  expect(cardOf({}, { graded: false })).toContain("measured by a judge");
});

test("settings are a table, without those that are not set, the judge's words and paths", () => {
  const template = { name: "own", text: "Is it good?\n{response}", maxScore: 5 };
  const settings = {
    system: "a | b",
    date: null,
    judge: { kind: "expected", template },
    training: { betas: [0.9, 0.95] },
  };
  const card = cardOf({ ...settings, prompts: "data\\rows.jsonl", heldOutPrompts: "a/b" });
  const [, table] = card.split("| setting | value |\n|---|---|\n");
  expect(table?.split("\n\n")[0]?.split("\n")).toEqual([
    "| system | a \\| b |",
    "| judge.kind | expected |",
    "| training.betas | [0.9,0.95] |",
  ]);
});

test("a model that is of no run has a card too", () => {
  expect(modelCard({ name: "Mine", format: "a GGUF file in F16", origin: null })).toBe(
    "---\npipeline_tag: text-generation\ntags: [tempora, gguf]\n---\n\n# Mine\n\nA language model, exported by Tempora (a GGUF file in F16).\n",
  );
});

test("a model finds its run, a baseline's too; any other folder has none", async () => {
  const run = await scratch();
  await writeFile(join(run, "run.json"), JSON.stringify(sampleRun().result));
  for (const [folder, model] of [
    ["models/M1", "M1"],
    ["self-rewarding/models/M2", "self-rewarding/M2"],
  ] as const) {
    await mkdir(join(run, folder), { recursive: true });
    expect((await originOf(join(run, folder)))?.model).toBe(model);
  }
  expect(await originOf(join(run, "models"))).toBeNull();
  expect(await originOf(await scratch())).toBeNull();
});
