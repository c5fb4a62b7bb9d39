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
