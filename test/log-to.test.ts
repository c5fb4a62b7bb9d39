import { existsSync } from "node:fs";
import { join } from "node:path";
import { oracle, readLines, scratch } from "@tempora/testing";
import { expect, test } from "vitest";
import { tempora } from "./support/cli.ts";

const folder = await scratch();

test("a training goes on and logs what its metrics say while one of its loggers has no server", async () => {
  const [out, metrics] = [join(folder, "out"), join(folder, "metrics.jsonl")];
  const files = ["--data", oracle("preference.jsonl"), "--out", out, "--metrics", metrics];
  const ran = await tempora(
    ["dpo", "--model", oracle("llama", "policy"), ...files, "--batch-pairs", "4", "--log-to", "mlflow,jsonl"],
    { env: { MLFLOW_TRACKING_URI: "http://127.0.0.1:9" } },
  );
  expect(ran.code, ran.stderr).toBe(0);
  expect(existsSync(join(out, "model.safetensors"))).toBe(true);
  expect(ran.stderr).toContain("mlflow takes no metrics now, the training goes on");
  expect(ran.stderr).toContain("6 rows were not logged");
  const rows = readLines(metrics);
  expect(rows).toHaveLength(6);
  expect(readLines(join(`${out}-logs`, "jsonl", "metrics.jsonl"))).toEqual(rows);
});

test("a logger that is not known is refused with those that are", async () => {
  const files = ["--data", oracle("preference.jsonl"), "--out", join(folder, "none")];
  const ran = await tempora(["dpo", "--model", oracle("llama", "policy"), ...files, "--log-to", "comet"]);
  expect(ran.code).toBe(1);
  expect(ran.stderr).toContain("tensorboard, wandb, mlflow, jsonl");
});
