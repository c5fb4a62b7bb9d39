import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { oracle, readLines, scratch } from "@tempora/testing";
import { expect, test, vi } from "vitest";
import { startTempora, tempora, temporaJson } from "./support/cli.ts";

vi.setConfig({ testTimeout: 120_000 });

const policy = oracle("llama", "policy");
const folder = await scratch();

interface OracleRow {
  prompt_ids: number[];
  chosen_ids: number[];
  rejected_ids: number[];
}

const rows = readLines<OracleRow>(oracle("llama", "logprobs.jsonl"));

function rowsFile(name: string, values: readonly object[]): string {
  const file = join(folder, name);
  writeFileSync(file, values.map((value) => `${JSON.stringify(value)}\n`).join(""));
  return file;
}

/** The bytes of all files below a folder. */
function contents(path: string): Record<string, string> {
  const names = readdirSync(path, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
  const files = names.map((entry) => join(entry.parentPath, entry.name));
  return Object.fromEntries(files.sort().map((file) => [file.slice(path.length), readFileSync(file, "base64")]));
}

/** Kills the command when so many lines are in the file, several times. */
async function killed(command: readonly string[], file: string, ...lines: number[]): Promise<void> {
  for (const count of lines) {
    const running = startTempora(command);
    const ended = { is: false };
    void running.done.then(() => {
      ended.is = true;
    });
    const written = () => (existsSync(file) ? readFileSync(file, "utf8").split("\n").length - 1 : 0);
    while (written() < count && !ended.is) await sleep(2);
    running.child.kill("SIGKILL");
    expect((await running.done).code, "it was to be killed before its end").toBeNull();
  }
}

const trainings = {
  sft: rowsFile(
    "sft.jsonl",
    rows.map((row) => ({ prompt_ids: row.prompt_ids, completion_ids: row.chosen_ids })),
  ),
  dpo: rowsFile(
    "dpo.jsonl",
    rows.map(({ prompt_ids, chosen_ids, rejected_ids }) => ({ prompt_ids, chosen_ids, rejected_ids })),
  ),
};

test.each([
  ["dpo", []],
  ["dpo", ["--lora-rank", "4", "--lora-dropout", "0.1", "--optimizer", "adamw_8bit"]],
  ["dpo", ["--reference", oracle("llama", "reference")]],
  ["sft", ["--dtype", "bf16"]],
] as const)("%s %j goes on after kill -9, to the bytes of one that was not killed", async (name, flags) => {
  const place = join(folder, `${name}${flags.join("")}`.replaceAll("/", "_"));
  mkdirSync(place);
  const command = (run: string) => {
    const out = join(place, run);
    const training = ["--batch-pairs", "2", "--epochs", "8", "--lr", "1e-4", "--save-state-seconds", "0"];
    return [
      name,
      "--model",
      policy,
      "--data",
      trainings[name],
      "--out",
      out,
      "--metrics",
      `${out}.jsonl`,
      ...training,
      ...flags,
    ];
  };
  await temporaJson(command("whole"));
  await killed(command("killed"), join(place, "killed.jsonl"), 3, 9);
  const { code, stderr } = await tempora(command("killed"));
  expect(code, stderr).toBe(0);
  expect(Number(/Going on behind step (\d+)/.exec(stderr)?.[1])).toBeGreaterThanOrEqual(7);
  expect(contents(join(place, "killed"))).toEqual(contents(join(place, "whole")));
  expect(readFileSync(join(place, "killed.jsonl"), "utf8")).toBe(readFileSync(join(place, "whole.jsonl"), "utf8"));
  expect(existsSync(join(place, "killed.work"))).toBe(false);
});

test("a training of other rows or settings than the one that was killed begins anew", async () => {
  const out = join(folder, "other");
  const command = [
    "dpo",
    "--model",
    policy,
    "--data",
    trainings.dpo,
    "--out",
    out,
    "--save-state-seconds",
    "0",
    "--batch-pairs",
    "2",
  ];
  await killed([...command, "--metrics", `${out}.jsonl`, "--epochs", "30"], `${out}.jsonl`, 3);
  const { code, stderr } = await tempora([...command, "--epochs", "1"]);
  expect(code, stderr).toBe(0);
  expect(stderr).toContain("it is begun anew");
  expect(stderr).not.toContain("Going on behind");
});

test("--save-steps keeps the model of every so many steps", async () => {
  const out = join(folder, "stepped");
  const command = [
    "sft",
    "--model",
    policy,
    "--data",
    trainings.sft,
    "--out",
    out,
    "--batch-pairs",
    "4",
    "--lr",
    "1e-3",
  ];
  await temporaJson([...command, "--epochs", "1", "--save-steps", "2"]);
  const kept = readdirSync(`${out}-checkpoints`).sort();
  expect(kept).toEqual(
    Array.from({ length: Math.floor(rows.length / 8) }, (_, k) => `checkpoint-${2 * (k + 1)}`).sort(),
  );
  const [early, last] = [join(`${out}-checkpoints`, "checkpoint-2"), out].map(
    (model) => contents(model)["/model.safetensors"],
  );
  expect(early).toBeDefined();
  expect(early).not.toBe(last);
});

test("generate goes on after kill -9, to the bytes of one that was not killed", async () => {
  const data = rowsFile(
    "prompts.jsonl",
    Array.from({ length: 6 }, (_, k) => rows.map(({ prompt_ids }) => ({ prompt_ids: [...prompt_ids, k] }))).flat(),
  );
  const command = (out: string) => [
    "generate",
    "--model",
    policy,
    "--data",
    data,
    "--n",
    "3",
    "--max-new-tokens",
    "60",
    "--max-rows",
    "8",
    "--out",
    join(folder, out),
  ];
  await temporaJson(command("whole.jsonl"));
  await killed(command("killed.jsonl"), join(folder, "killed.jsonl.work", "completions.jsonl"), 60);
  const { code, stderr } = await tempora(command("killed.jsonl"));
  expect(code, stderr).toBe(0);
  expect(Number(/Going on behind (\d+) completions/.exec(stderr)?.[1])).toBeGreaterThanOrEqual(60);
  expect(readFileSync(join(folder, "killed.jsonl"), "utf8")).toBe(readFileSync(join(folder, "whole.jsonl"), "utf8"));
  expect(existsSync(join(folder, "killed.jsonl.work"))).toBe(false);
});
