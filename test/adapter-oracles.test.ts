import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { Engine } from "@tempora/engine";
import { openAdapter, openCheckpoint, readSafetensors, saveAdapter } from "@tempora/models";
import { families, oracle, readJson, readLines, scratch } from "@tempora/testing";
import { describe, expect, test } from "vitest";
import { temporaJson } from "./support/cli.ts";
import {
  oracleJson,
  oracleRows,
  oracleTensors,
  pairForest,
  relativeError,
  type ScoredPair,
} from "./support/oracles.ts";

const folder = await scratch();
/** `bun run test:gpu` asks the same of a CUDA device. */
const device = process.env.TEMPORA_TEST_DEVICE === "cuda" ? "cuda" : "cpu";
const prefix = "base_model.model.";

interface Step {
  loss: number;
  grad_norm: number;
  learning_rate: number;
  "logps/chosen": number;
  "logps/rejected": number;
}

interface Trajectory {
  config: Record<string, number>;
  steps: Step[];
  logps_after_training: [number, number][];
}

async function load(family: string): Promise<Engine> {
  const engine = await Engine.load(await openCheckpoint(oracle(family, "reference")), { device, dtype: "f32" });
  await engine.adapters.load("oracle", await openAdapter(oracle(family, "lora/adapter")));
  await engine.adapters.activate("oracle");
  return engine;
}

/** Rows with the log-probs of the adapter; the references are the base's. */
function rowsOf(family: string): ScoredPair[] {
  const base = oracleRows<ScoredPair>(`${family}/logprobs.jsonl`);
  return oracleRows<ScoredPair>(`${family}/lora/logprobs.jsonl`).map(
    (row, i) => ({ ...base[i], ...row }) as ScoredPair,
  );
}

/** B · A of every module, row-major. */
async function products(directory: string): Promise<Map<string, Float32Array>> {
  const { tensors } = await readSafetensors(join(directory, "adapter_model.safetensors"));
  const found = new Map<string, Float32Array>();
  for (const b of tensors.values()) {
    if (!b.name.endsWith(".lora_B.weight")) continue;
    const a = tensors.get(b.name.replace("lora_B", "lora_A"))!;
    const [outputs, rank, inputs] = [b.shape[0]!, b.shape[1]!, a.shape[1]!];
    const left = new Float32Array(Uint8Array.from(await b.read()).buffer);
    const right = new Float32Array(Uint8Array.from(await a.read()).buffer);
    const product = new Float32Array(outputs * inputs);
    for (let n = 0; n < outputs; n++) {
      for (let r = 0; r < rank; r++) {
        for (let k = 0; k < inputs; k++) product[n * inputs + k]! += left[n * rank + r]! * right[r * inputs + k]!;
      }
    }
    found.set(b.name, product);
  }
  return found;
}

test("a new adapter is trained over 4-bit weights with 8-bit moments, and merged into what they stand for", async () => {
  const data = join(folder, "few.jsonl");
  writeFileSync(
    data,
    readLines<object>(oracle("preference.jsonl"))
      .slice(0, 4)
      .map((row) => `${JSON.stringify(row)}\n`)
      .join(""),
  );
  const model = ["--model", oracle("llama", "reference"), "--quantize", "nf4"];
  const [adapter, merged] = [join(folder, "qlora"), join(folder, "qlora-merged")];
  const lora = [
    "--lora-rank",
    "4",
    "--lora-targets",
    "q_proj,v_proj",
    "--lora-dropout",
    "0.1",
    "--optimizer",
    "adamw_8bit",
  ];
  await temporaJson(["dpo", ...model, "--data", data, "--out", adapter, "--lr", "1e-2", "--batch-pairs", "2", ...lora]);
  const { config, base } = await openAdapter(adapter);
  expect(config).toMatchObject({ rank: 4, alpha: 8, dropout: 0.1, targets: ["q_proj", "v_proj"] });
  expect(base).toBe(oracle("llama", "reference"));
  await temporaJson(["merge", ...model, "--adapter", adapter, "--out", merged]);
  const score = async (name: string, ...of: string[]) => {
    const out = join(folder, `${name}.jsonl`);
    await temporaJson(["logprobs", "--data", data, "--out", out, ...of]);
    return readLines<{ chosen_logprobs: number[] }>(out).flatMap((row) => row.chosen_logprobs);
  };
  const apart = await score("apart", ...model, "--adapter", adapter);
  const together = await score("together", "--model", merged);
  apart.forEach((value, i) => {
    expect(Math.abs(value - (together[i] as number))).toBeLessThan(1e-3);
  });
  expect(await score("untrained", ...model)).not.toEqual(apart);
});

describe.each(families)("%s with PEFT's adapter", (family) => {
  test("gives PEFT's log-prob of every token", async () => {
    const rows = rowsOf(family);
    const { forest, pairs } = pairForest(rows);
    using engine = await load(family);
    const { token, node } = await engine.logProbs(forest);
    rows.forEach((row, i) => {
      for (const side of ["chosen", "rejected"] as const) {
        const leaf = pairs[i]?.[side] as number;
        const mine = token.subarray(forest.nodeStart[leaf], forest.nodeStart[leaf + 1]);
        mine.forEach((value, at) => {
          expect(Math.abs(value - (row[`${side}_logprobs`][at] as number)), `pair ${i}, ${side}`).toBeLessThan(1e-4);
        });
        expect(Math.abs((node[leaf] as number) - row[`${side}_sum`])).toBeLessThan(1e-2);
      }
    });
  });

  test.each([false, true])("gives its gradients of A and B, checkpointing %s", async (checkpointing) => {
    const truth = oracleJson<{ beta: number; per_pair_loss: number[]; grad_norm: number }>(
      `${family}/lora/dpo_step.json`,
    );
    const { forest, pairs } = pairForest(rowsOf(family).slice(0, 4));
    using engine = await load(family);
    const loss = { terms: [{ type: "sigmoid" as const, weight: 1 }], beta: truth.beta };
    const result = await engine.preferenceStep(forest, pairs, loss, { checkpointing });
    result.pairs.forEach((pair, i) => {
      expect(Math.abs(pair.loss - (truth.per_pair_loss[i] as number))).toBeLessThan(1e-3);
    });
    const theirs = await oracleTensors(`${family}/lora/dpo_grads.safetensors`);
    expect(theirs.size).toBe(engine.trainable.length);
    for (const [name, gradient] of theirs) {
      const mine = await engine.getGradient(name.replace(prefix, "").replace(".default", ""));
      expect(relativeError(mine, gradient), name).toBeLessThan(1e-3);
    }
    const { gradNorm } = await engine.optimizerStep({ learningRate: 0 });
    expect(Math.abs(gradNorm / truth.grad_norm - 1)).toBeLessThan(1e-3);
  });

  test("dpo --adapter follows TRL's trajectory and ends with its adapter", async () => {
    const truth = readJson<Trajectory>(oracle(family, "lora/trl_trajectory.json"));
    const data = join(folder, `${family}.jsonl`);
    const rows = readLines<object>(oracle("preference.jsonl")).slice(0, 12);
    writeFileSync(data, rows.map((row) => `${JSON.stringify(row)}\n`).join(""));
    const [out, metrics] = [join(folder, `${family}-adapter`), join(folder, `${family}-metrics.jsonl`)];
    const base = ["--model", oracle(family, "reference"), "--data", data];
    await temporaJson([
      ...["dpo", ...base, "--adapter", oracle(family, "lora/adapter"), "--out", out, "--metrics", metrics],
      ...["--lr", "2e-3", "--warmup-steps", "1", "--weight-decay", "0.01", "--epochs", "2", "--beta", "0.1"],
      ...["--batch-pairs", "4", "--no-shuffle", "--loss", "sigmoid"],
    ]);
    const steps = readLines<Step>(metrics);
    expect(steps.length).toBe(truth.steps.length);
    steps.forEach((step, i) => {
      const theirs = truth.steps[i] as Step;
      expect(Math.abs(step.loss - theirs.loss), `loss of step ${i + 1}`).toBeLessThanOrEqual(
        2e-3 * Math.abs(theirs.loss),
      );
      expect(step.learning_rate).toBeCloseTo(theirs.learning_rate, 9);
      if (i > 0) return;
      expect(Math.abs(step["logps/chosen"] - theirs["logps/chosen"])).toBeLessThan(1e-2);
      expect(Math.abs(step.grad_norm / theirs.grad_norm - 1)).toBeLessThan(1e-3);
    });
    const scored = join(folder, `${family}-after.jsonl`);
    await temporaJson(["logprobs", ...base, "--adapter", out, "--out", scored]);
    readLines<{ chosen_sum: number; rejected_sum: number }>(scored).forEach((row, i) => {
      const [chosen, rejected] = truth.logps_after_training[i] as [number, number];
      expect(Math.abs(row.chosen_sum / chosen - 1)).toBeLessThan(2e-2);
      expect(Math.abs(row.rejected_sum / rejected - 1)).toBeLessThan(2e-2);
    });
    // The adapter itself, whose A and B may turn against each other, by its products.
    const [mine, trained] = [await products(out), await products(oracle(family, "lora/trained"))];
    for (const [name, product] of trained) expect(relativeError(mine.get(name)!, product), name).toBeLessThan(2e-2);
    // Whoever opens it next finds the base where PEFT had it.
    expect((await openAdapter(out)).raw).toEqual((await openAdapter(oracle(family, "lora/adapter"))).raw);
  });

  test("goes through the engine and back to PEFT's files unchanged", async () => {
    const source = await openAdapter(oracle(family, "lora/adapter"));
    using engine = await load(family);
    const out = join(folder, `${family}-again`);
    await saveAdapter(out, {
      config: source.config,
      raw: source.raw,
      parameters: engine.adapters.parameters("oracle"),
      tensors: engine.adapters.tensors("oracle"),
    });
    const again = await openAdapter(out);
    expect(again.raw).toEqual(source.raw);
    expect(again.base).toBe(source.base);
    const bytes = async (which: typeof source) =>
      Object.fromEntries(
        await Promise.all(
          (await Array.fromAsync(which.tensors())).map(async ({ name, read }) => [
            name,
            Buffer.from(await read()).toString("hex"),
          ]),
        ),
      );
    expect(await bytes(again)).toEqual(await bytes(source));
  });

  test("merge writes a checkpoint that says the same without it", async () => {
    const data = join(folder, `${family}-four.jsonl`);
    writeFileSync(
      data,
      readLines<object>(oracle("preference.jsonl"))
        .slice(0, 4)
        .map((row) => `${JSON.stringify(row)}\n`)
        .join(""),
    );
    const [model, adapter] = [oracle(family, "reference"), oracle(family, "lora/adapter")];
    const merged = join(folder, `${family}-merged`);
    await temporaJson(["merge", "--model", model, "--adapter", adapter, "--out", merged]);
    const score = async (...of: string[]) => {
      const out = join(folder, `${family}-${of.length}.jsonl`);
      await temporaJson(["logprobs", "--data", data, "--out", out, ...of]);
      return readLines<{ chosen_logprobs: number[] }>(out).flatMap((row) => row.chosen_logprobs);
    };
    const [apart, together] = [await score("--model", model, "--adapter", adapter), await score("--model", merged)];
    apart.forEach((value, i) => {
      expect(Math.abs(value - (together[i] as number))).toBeLessThan(1e-4);
    });
  });
});
