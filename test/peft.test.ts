import { spawn } from "node:child_process";
import { existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { type AdapterConfig, Engine } from "@tempora/engine";
import { newAdapterConfigJson, openAdapter, openCheckpoint, saveAdapter } from "@tempora/models";
import { oracle, readLines, scratch } from "@tempora/testing";
import { expect, test } from "vitest";
import { temporaJson } from "./support/cli.ts";
import { pairForest, type ScoredPair } from "./support/oracles.ts";

const root = join(import.meta.dirname, "..");
const environment = join(root, "bench/peers/.python");
const installed = existsSync(join(environment, "complete"));
if (!installed) process.stderr.write("skipped: adapters in PEFT: `bun run bench --peers` installs it\n");
/** Transformers and PEFT take seconds to be read. */
const patience = 240_000;

const folder = await scratch();
const pairs = readLines<ScoredPair>(oracle("llama", "logprobs.jsonl")).slice(0, 4);
const [pairsFile, examplesFile] = [join(folder, "pairs.jsonl"), join(folder, "examples.jsonl")];
const lines = (rows: readonly object[]) => rows.map((row) => `${JSON.stringify(row)}\n`).join("");
writeFileSync(
  pairsFile,
  lines(pairs.map(({ prompt_ids, chosen_ids, rejected_ids }) => ({ prompt_ids, chosen_ids, rejected_ids }))),
);
writeFileSync(
  examplesFile,
  lines(pairs.map(({ prompt_ids, chosen_ids }) => ({ prompt_ids, completion_ids: chosen_ids }))),
);

interface Job {
  base: string;
  adapter: string;
  dtype: "float32" | "bfloat16";
  /** Fields of LoraConfig: PEFT makes the adapter. */
  make?: Record<string, unknown>;
}

interface InPeft {
  missing: string[];
  unexpected: string[];
  adapted: number[][];
  base: number[][];
}

/** All of them in one process. */
async function inPeft(jobs: readonly Job[]): Promise<InPeft[]> {
  const rows = pairs.flatMap(({ prompt_ids, chosen_ids, rejected_ids }) =>
    [chosen_ids, rejected_ids].map((completion_ids) => ({ prompt_ids, completion_ids })),
  );
  const child = spawn(join(environment, "bin/python"), [join(root, "scripts/oracles/peft_folders.py")]);
  child.stdin.end(JSON.stringify(jobs.map((job) => ({ ...job, rows }))));
  const [output, errors] = await Promise.all([text(child.stdout), text(child.stderr)]);
  if (output === "") throw new Error(errors);
  return JSON.parse(output) as InPeft[];
}

async function ours({ base, adapter, dtype }: Job): Promise<number[]> {
  const out = `${adapter}.jsonl`;
  const given = ["--model", base, "--adapter", adapter, "--data", pairsFile, "--out", out, "--device", "cpu"];
  await temporaJson(["logprobs", ...given, "--dtype", dtype === "float32" ? "f32" : "bf16"]);
  return readLines<ScoredPair>(out).flatMap((row) => [...row.chosen_logprobs, ...row.rejected_logprobs]);
}

const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;

/** In f32 token by token; in bf16, where each rounds in places of its own, far nearer than the adapter reaches. */
async function expectSame(job: Job, { missing, unexpected, ...theirs }: InPeft): Promise<void> {
  expect({ missing, unexpected }).toEqual({ missing: [], unexpected: [] });
  const [adapted, without] = [theirs.adapted.flat(), theirs.base.flat()];
  const apart = (await ours(job)).map((value, i) => Math.abs(value - (adapted[i] as number)));
  const effect = mean(adapted.map((value, i) => Math.abs(value - (without[i] as number))));
  expect(effect).toBeGreaterThan(0.1);
  if (job.dtype === "float32") expect(Math.max(...apart)).toBeLessThan(1e-4);
  else expect(mean(apart)).toBeLessThan(effect / 10);
}

/** As a command leaves it. */
async function trained(name: string, base: string, command: "dpo" | "sft", ...flags: string[]): Promise<Job> {
  const adapter = join(folder, name);
  const given = ["--model", base, "--data", command === "dpo" ? pairsFile : examplesFile, "--out", adapter];
  const training = ["--lr", "2e-2", "--epochs", "3", "--batch-pairs", "2", "--device", "cpu"];
  await temporaJson([command, ...given, ...training, ...flags]);
  return { base, adapter, dtype: flags.includes("bf16") ? "bfloat16" : "float32" };
}

/** With ranks and alphas of single modules, which no flag asks for. */
async function patterned(base: string): Promise<Job> {
  const config: AdapterConfig = {
    rank: 4,
    alpha: 8,
    targets: ".*\\.(self_attn\\.[qv]|mlp\\.down)_proj",
    ranks: { "layers.1.self_attn.q_proj": 2 },
    alphas: { down_proj: 3 },
  };
  using engine = await Engine.load(await openCheckpoint(base), { device: "cpu", dtype: "f32" });
  const { adapters } = engine;
  await adapters.add("a", config, { seed: 3 });
  await adapters.activate("a");
  const { forest, pairs: leaves } = pairForest(pairs);
  for (let step = 0; step < 4; step++) {
    await engine.preferenceStep(forest, leaves, { terms: [{ type: "sigmoid", weight: 1 }], beta: 0.1 });
    await engine.optimizerStep({ learningRate: 2e-2 });
  }
  const adapter = join(folder, "patterned");
  const raw = newAdapterConfigJson(config, base);
  await saveAdapter(adapter, { config, raw, parameters: adapters.parameters("a"), tensors: adapters.tensors("a") });
  return { base, adapter, dtype: "float32" };
}

test.skipIf(!installed)(
  "PEFT opens every kind of adapter that is saved here, and gives its log-probs",
  async () => {
    const reference = (family: string) => oracle(family, "reference");
    const rank = ["--lora-rank", "4"];
    const given = ["--adapter", oracle("mistral", "lora/adapter")];
    const jobs = [
      await trained("some", reference("llama"), "dpo", ...rank, "--lora-targets", "q_proj,v_proj", "--lora-alpha", "6"),
      await trained("rs", reference("qwen2"), "sft", ...rank, "--rslora", "--lora-dropout", "0.1"),
      await trained("over-nf4", reference("llama3"), "dpo", ...rank, "--quantize", "nf4"),
      await trained("over-bf16", reference("qwen3"), "dpo", ...rank, "--dtype", "bf16"),
      await trained("gone-on", reference("mistral"), "dpo", ...given),
      await patterned(reference("qwen3")),
    ];
    const results = await inPeft(jobs);
    expect(results).toHaveLength(jobs.length);
    for (const [i, job] of jobs.entries()) await expectSame(job, results[i] as InPeft);
  },
  patience,
);

test.skipIf(!installed)(
  "adapters that PEFT saves say here what they say there, or are refused by what is different",
  async () => {
    const made = (name: string, family: string, make: Record<string, unknown>): Job => {
      return { base: oracle(family, "reference"), adapter: join(folder, name), dtype: "float32", make };
    };
    const all = { r: 4, lora_alpha: 8, target_modules: "all-linear" };
    const jobs = [
      made("peft-all", "qwen2", { ...all, lora_dropout: 0.2 }),
      made("peft-rs", "llama3", {
        ...all,
        use_rslora: true,
        target_modules: ["o_proj", "up_proj"],
        saved_as: "bfloat16",
      }),
      made("peft-half", "mistral", { ...all, target_modules: ".*self_attn\\.[kv]_proj", saved_as: "float16" }),
      made("peft-patterns", "qwen3", { ...all, rank_pattern: { down_proj: 2 }, alpha_pattern: { "1.mlp.up_proj": 3 } }),
    ];
    const refused = [
      made("peft-dora", "llama", { ...all, use_dora: true }),
      made("peft-head", "llama", { ...all, modules_to_save: ["lm_head"] }),
    ];
    const results = await inPeft([...jobs, ...refused]);
    for (const [i, job] of jobs.entries()) await expectSame(job, results[i] as InPeft);
    for (const [i, field] of ["use_dora", "modules_to_save"].entries()) {
      await expect(openAdapter((refused[i] as Job).adapter)).rejects.toThrow(`The engine does not compute ${field}`);
    }
  },
  patience,
);
