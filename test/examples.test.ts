import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { paperSettings, parseConfig, worldSettings } from "@tempora/run";
import { oracle } from "@tempora/testing";
import { expect, test } from "vitest";
import { bulletPoints } from "../examples/bullets.ts";
import judgeConfig from "../examples/judge.config.ts";
import config from "../examples/tempora.config.ts";

function example(name: string): number[] {
  const file = fileURLToPath(new URL(`../examples/${name}`, import.meta.url));
  const { status, stdout, stderr } = spawnSync(process.execPath, [file, oracle("llama", "policy")], {
    encoding: "utf8",
  });
  expect(stderr).toBe("");
  expect(status).toBe(0);
  return [...stdout.matchAll(/loss (\d+\.\d+)/g)].map((match) => Number(match[1]));
}

test("a DPO step starts from a loss of log 2 and lowers it", () => {
  const losses = example("dpo-step.ts");
  expect(losses.length).toBe(3);
  expect(losses[0]).toBeCloseTo(Math.LN2, 3);
  expect(losses[2]).toBeLessThan(losses[0] as number);
});

test("an adapter is trained against copies of its past", () => {
  const losses = example("adapters.ts");
  expect(losses.length).toBe(6);
  // Dropout moves the first loss a little from log 2.
  expect(losses[0]).toBeCloseTo(Math.LN2, 1);
  expect(losses[5]).toBeLessThan(losses[3] as number);
});

test("a custom loss falls through accumulate", () => {
  const losses = example("custom-loss.ts");
  expect(losses.length).toBeGreaterThan(1);
  expect(losses.at(-1)).toBeLessThan(losses[0] as number);
});

test("the example configuration is valid", () => {
  const { settings, run } = parseConfig(config, worldSettings());
  expect(run).toBe("length-controlled");
  expect(settings.baselines).toEqual(["self-rewarding", "past-only"]);
});

test("the example of a judge is valid, and its function counts bullet points", () => {
  const { settings } = parseConfig({ ...judgeConfig, model: "m", prompts: "p" }, paperSettings);
  expect(settings.judge.functions.map(({ name, weight, range }) => [name, weight, range])).toEqual([
    ["bullets", 1, [0, 5]],
  ]);
  const answers = ["- a\n- b\n- c", "Text.\n- a\n- b", "1. a\n2. b\n3. c", "* a\n* b\n* c\n* d\n* e\n* f"];
  expect(bulletPoints({ prompts: [], answers })).toEqual([5, 3, 0, 0]);
  expect(bulletPoints({ prompts: [], answers, points: [3, 2, 2, 6] })).toEqual([5, 5, 0, 5]);
});
