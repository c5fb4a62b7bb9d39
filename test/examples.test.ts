import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { parseConfig, worldSettings } from "@tempora/run";
import { oracle } from "@tempora/testing";
import { expect, test } from "vitest";
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
