import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { RunResult } from "@tempora/run";
import { readLines, scratch } from "@tempora/testing";
import { describe, expect, test, vi } from "vitest";
import { artifacts } from "../packages/run/src/loop/tiny.ts";
import { startTempora, tempora, temporaJson } from "./support/cli.ts";
import { tinyConfig } from "./support/tiny-run.ts";

vi.setConfig({ testTimeout: 300_000 });

const folder = await scratch();
const config = join(folder, "tiny.config.ts");
writeFileSync(config, `export default ${JSON.stringify({ ...tinyConfig, iterations: 2, saveStateSeconds: 0.2 })};\n`);
const train = (runs: string) => {
  const lora = [
    "--lora-rank",
    "4",
    "--lora-alpha",
    "16",
    "--lora-targets",
    "q_proj,v_proj,down_proj",
    "--lora-dropout",
    "0.1",
  ];
  return ["train", config, "--strategy", "temporal", "--no-page", "--runs", runs, "--run", "lora", ...lora];
};
const run = join(folder, "runs", "lora");
const model = (name: string) => join(run, "models", name);

describe("train --lora-rank", () => {
  test("makes every later model an adapter over M0", async () => {
    const { run: result } = await temporaJson<{ run: RunResult }>(train(join(folder, "runs")));
    expect(result.strategies[0]?.models.map(({ model: name }) => name)).toEqual(["M0", "M1", "M2"]);
    const raw = JSON.parse(readFileSync(join(model("M2"), "adapter_config.json"), "utf8"));
    expect(raw).toMatchObject({
      peft_type: "LORA",
      r: 4,
      lora_alpha: 16,
      target_modules: ["q_proj", "v_proj", "down_proj"],
    });
    const [whole, adapter] = [join(model("M0"), "model.safetensors"), join(model("M2"), "adapter_model.safetensors")];
    expect(statSync(adapter).size).toBeLessThan(statSync(whole).size / 10);
  });

  test("gives the same bytes after kill -9 at several points", async () => {
    const runs = join(folder, "killed");
    const begun = (kind: string) => {
      const stages = join(runs, ".store", kind);
      return existsSync(stages) ? readdirSync(stages).length : 0;
    };
    const points = { "supervised-training": [1], answers: [2, 5, 6], "preference-training": [1, 4] };
    for (const [kind, counts] of Object.entries(points)) {
      for (const count of counts) {
        const running = startTempora(train(runs));
        const ended = { is: false };
        void running.done.then(() => {
          ended.is = true;
        });
        while (begun(kind) < count && !ended.is) await sleep(5);
        await sleep(40);
        running.child.kill("SIGKILL");
        await running.done;
      }
    }
    const { code, stderr } = await tempora(train(runs));
    expect(code, stderr).toBe(0);
    expect(stderr).toMatch(/Reused \d+ stages that were in the store/);
    expect(await artifacts(join(runs, "lora"))).toEqual(await artifacts(run));
  });
});

describe("a run's adapter as a model", () => {
  test("computes what it does over its base, and what it is merged to", async () => {
    const data = join(folder, "data.jsonl");
    const rows = readLines<{ prompt: unknown; text: string }>(join(run, "evaluation", "M2.jsonl")).filter(
      ({ text }) => text !== "",
    );
    writeFileSync(
      data,
      rows
        .map(
          ({ prompt, text }) => `${JSON.stringify({ prompt, completion: [{ role: "assistant", content: text }] })}\n`,
        )
        .join(""),
    );
    const merged = join(folder, "merged");
    await temporaJson(["merge", "--model", model("M2"), "--out", merged]);
    const scored = async (...flags: string[]) => {
      const out = join(folder, "scored.jsonl");
      await temporaJson(["logprobs", ...flags, "--data", data, "--out", out]);
      return readLines<{ completion_logprobs: number[] }>(out).map(({ completion_logprobs: list }) => list);
    };
    const own = await scored("--model", model("M2"));
    expect(own).toEqual(await scored("--model", model("M0"), "--adapter", model("M2")));
    const whole = (await scored("--model", merged)).flat();
    expect(Math.max(...own.flat().map((value, k) => Math.abs(value - (whole[k] as number))))).toBeLessThan(1e-4);
    expect(own).not.toEqual(await scored("--model", model("M0")));
  });

  test("answers and judges as it does over its base, by its folder alone", async () => {
    const questions = join(folder, "questions.jsonl");
    const rows = readLines<{ prompt: unknown }>(join(run, "evaluation", "M2.jsonl")).slice(0, 8);
    writeFileSync(questions, rows.map(({ prompt }) => `${JSON.stringify({ prompt })}\n`).join(""));
    let files = 0;
    const written = async (command: string, data: string, ...flags: string[]) => {
      const out = join(folder, `${command}-${files++}.jsonl`);
      await temporaJson([command, ...flags, "--data", data, "--out", out]);
      return readLines<{ completions: { text: string; score?: number }[] }>(out);
    };
    const sampled = ["--n", "3", "--seed", "1", "--max-new-tokens", "16"];
    const answers = await written("generate", questions, "--model", model("M2"), ...sampled);
    const apart = ["--model", model("M0"), "--adapter", model("M2")];
    expect(answers).toEqual(await written("generate", questions, ...apart, ...sampled));
    expect(answers).not.toEqual(await written("generate", questions, "--model", model("M0"), ...sampled));

    const candidates = join(folder, "candidates.jsonl");
    writeFileSync(candidates, answers.map((row) => `${JSON.stringify(row)}\n`).join(""));
    const scores = async (...flags: string[]) => {
      const judged = await written("judge", candidates, ...flags, "--judge", "expected");
      return judged.flatMap(({ completions }) => completions.map(({ score }) => score));
    };
    const own = await scores("--model", model("M2"));
    expect(own.every((score) => typeof score === "number")).toBe(true);
    expect(own).toEqual(await scores(...apart));
    expect(own).not.toEqual(await scores("--model", model("M0")));
  });

  test("is compared with M0, trained on by dpo, and refused where it cannot be meant", async () => {
    const compared = await temporaJson<{ models: string[] }>(["compare", "M0", "M2", "--run", run, "--limit", "2"]);
    expect(compared.models).toHaveLength(2);
    const pairs = join(run, "iterations", "2", "pairs.jsonl");
    const out = join(folder, "further");
    await temporaJson(["dpo", "--model", model("M2"), "--data", pairs, "--out", out]);
    expect(existsSync(join(out, "adapter_config.json"))).toBe(true);
    const refused = async (...command: string[]) => {
      const { code, stderr } = await tempora(command);
      expect(code).toBe(1);
      return stderr;
    };
    expect(await refused("export", "--model", model("M2"), "--out", join(folder, "x"))).toContain(
      "tempora merge --model",
    );
    expect(
      await refused(
        "logprobs",
        "--model",
        model("M2"),
        "--adapter",
        model("M1"),
        "--data",
        pairs,
        "--out",
        `${out}.jsonl`,
      ),
    ).toContain("The model is an adapter already");
    const trained = ["train", "--model", model("M0"), "--adapter", model("M1"), "--prompts", pairs];
    expect(await refused(...trained, "--lora-rank", "4")).toContain("An adapter is given, and a new one is asked for");
    expect(await refused("train", "--quantize", "nf4")).toContain("Quantized weights cannot be trained");
  });
});
