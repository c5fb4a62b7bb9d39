import { Engine, ForestBuilder, type LossType, preferenceLoss } from "@tempora/engine";
import { openCheckpoint } from "@tempora/models";
import { families, olderReference, oracle } from "@tempora/testing";
import { describe, expect, test } from "vitest";
import {
  oracleJson,
  oracleRows,
  oracleTensors,
  pairForest,
  relativeError,
  type ScoredPair,
} from "./support/oracles.ts";

interface DpoStep {
  beta: number;
  per_pair_loss: number[];
  grad_norm: number;
  adamw: { lr: number; betas: [number, number]; eps: number; weight_decay: number; loss_before_each_step: number[] };
}

/** `bun run test:gpu` asks the same of a CUDA device. */
const device = process.env.TEMPORA_TEST_DEVICE === "cuda" ? "cuda" : "cpu";

async function load(family: string, which: string): Promise<Engine> {
  return Engine.load(await openCheckpoint(oracle(family, which)), { device, dtype: "f32" });
}

function largestDifference(a: ArrayLike<number>, b: ArrayLike<number>): number {
  expect(a.length).toBe(b.length);
  let largest = 0;
  for (let i = 0; i < a.length; i++) largest = Math.max(largest, Math.abs((a[i] as number) - (b[i] as number)));
  return largest;
}

/** Every gradient, by name. */
async function gradients(engine: Engine): Promise<Map<string, Float32Array>> {
  const all = new Map<string, Float32Array>();
  for (const { name } of engine.parameters) all.set(name, await engine.getGradient(name));
  return all;
}

function globalNorm(all: Map<string, Float32Array>): number {
  let squares = 0;
  for (const gradient of all.values()) for (const value of gradient) squares += value * value;
  return Math.sqrt(squares);
}

describe.each(families)("%s", (family) => {
  test("gives transformers' log-prob of every token and sequence, policy and reference", async () => {
    const rows = oracleRows<ScoredPair>(`${family}/logprobs.jsonl`);
    const { forest, pairs } = pairForest(rows);
    using policy = await load(family, "policy");
    const { token, node } = await policy.logProbs(forest);
    rows.forEach((row, i) => {
      for (const side of ["chosen", "rejected"] as const) {
        const leaf = pairs[i]?.[side] as number;
        const mine = token.subarray(forest.nodeStart[leaf], forest.nodeStart[leaf + 1]);
        expect(largestDifference(mine, row[`${side}_logprobs`]), `pair ${i}, ${side}`).toBeLessThan(1e-4);
        expect(Math.abs((node[leaf] as number) - row[`${side}_sum`])).toBeLessThan(1e-2);
      }
    });
    using reference = await load(family, "reference");
    const sums = (await reference.logProbs(forest)).node;
    rows.forEach((row, i) => {
      expect(Math.abs((sums[pairs[i]?.chosen as number] as number) - row.chosen_reference_sum)).toBeLessThan(1e-2);
      expect(Math.abs((sums[pairs[i]?.rejected as number] as number) - row.rejected_reference_sum)).toBeLessThan(1e-2);
    });
  });

  test.each([false, true])("makes TRL's DPO step: loss and gradients, checkpointing %s", async (checkpointing) => {
    const oracle = oracleJson<DpoStep>(`${family}/dpo_step.json`);
    const { forest, pairs } = pairForest(oracleRows<ScoredPair>(`${family}/logprobs.jsonl`).slice(0, 4));
    using engine = await load(family, "policy");
    const loss = { terms: [{ type: "sigmoid" as const, weight: 1 }], beta: oracle.beta };
    const result = await engine.preferenceStep(forest, pairs, loss, { checkpointing });
    const losses = result.pairs.map((pair) => pair.loss);
    expect(largestDifference(losses, oracle.per_pair_loss)).toBeLessThan(1e-3);
    expect(result.loss).toBeCloseTo(oracle.per_pair_loss.reduce((sum, value) => sum + value) / 4, 4);
    const mine = await gradients(engine);
    const theirs = await oracleTensors(`${family}/dpo_grads.safetensors`);
    expect(theirs.size).toBe(mine.size);
    for (const [name, gradient] of theirs) {
      expect(relativeError(mine.get(name) as Float32Array, gradient), name).toBeLessThan(1e-3);
    }
    expect(Math.abs(globalNorm(mine) / oracle.grad_norm - 1)).toBeLessThan(1e-3);
  });

  test("makes three AdamW steps as torch does", async () => {
    const oracle = oracleJson<DpoStep>(`${family}/dpo_step.json`);
    const { adamw } = oracle;
    const { forest, pairs } = pairForest(oracleRows<ScoredPair>(`${family}/logprobs.jsonl`).slice(0, 4));
    using engine = await load(family, "policy");
    const loss = { terms: [{ type: "sigmoid" as const, weight: 1 }], beta: oracle.beta };
    for (const before of adamw.loss_before_each_step) {
      const step = await engine.preferenceStep(forest, pairs, loss);
      expect(Math.abs(step.loss - before)).toBeLessThan(2e-3 * Math.max(1, before));
      await engine.optimizerStep({
        learningRate: adamw.lr,
        betas: adamw.betas,
        epsilon: adamw.eps,
        weightDecay: adamw.weight_decay,
        decayAll: true,
      });
    }
    for (const [name, values] of await oracleTensors(`${family}/adamw_after_3_steps.safetensors`)) {
      const mine = new Float32Array((await engine.getParameter(name)).buffer);
      expect(relativeError(mine, values), name).toBeLessThan(1e-3);
    }
  });

  test("makes the supervised step: token-mean cross-entropy and its gradient norm", async () => {
    const oracle = oracleJson<{ loss: number; tokens: number; grad_norm: number }>(`${family}/sft_step.json`);
    const builder = new ForestBuilder();
    for (const row of oracleRows<ScoredPair>(`${family}/logprobs.jsonl`).slice(0, 4)) {
      builder.add(row.chosen_ids, builder.share(row.prompt_ids));
    }
    using engine = await load(family, "policy");
    const step = await engine.supervisedStep(builder.build());
    expect(step.tokens).toBe(oracle.tokens);
    expect(Math.abs(step.loss / oracle.loss - 1)).toBeLessThan(1e-4);
    expect(Math.abs(globalNorm(await gradients(engine)) / oracle.grad_norm - 1)).toBeLessThan(1e-3);
  });

  test("generates transformers' greedy tokens", async () => {
    const rows = oracleRows<{ prompt_ids: number[]; completion_ids: number[]; smallest_top2_logit_gap: number }>(
      `${family}/greedy.jsonl`,
    );
    using engine = await load(family, "policy");
    const prompts = rows.map((row) => ({ ids: row.prompt_ids }));
    let compared = 0;
    for await (const completion of engine.generate(prompts, { temperature: 0, maxNewTokens: 32 })) {
      const row = rows[completion.prompt];
      // Below 1e-3 between the two best logits a flip is no fault.
      if (row === undefined || row.smallest_top2_logit_gap < 1e-3) continue;
      expect(completion.ids, `prompt ${completion.prompt}`).toEqual(row.completion_ids);
      compared++;
    }
    expect(compared).toBeGreaterThan(rows.length / 2);
  });

  test("reads the sharded bf16 checkpoint in the older config style", async () => {
    const rows = oracleRows<ScoredPair>(`${family}/logprobs.jsonl`).slice(0, 4);
    const { forest, pairs } = pairForest(rows);
    using engine = await Engine.load(await openCheckpoint(olderReference(family)), { device, dtype: "f32" });
    const { node } = await engine.logProbs(forest);
    rows.forEach((row, i) => {
      const mine = node[pairs[i]?.chosen as number] as number;
      expect(Math.abs(mine / row.chosen_reference_sum - 1)).toBeLessThan(1e-2); // the weights are rounded
    });
  });
});

interface LossCase {
  loss_type: LossType;
  beta: number;
  label_smoothing: number;
  discopop_tau?: number;
  policy_chosen: number[];
  policy_rejected: number[];
  mean_loss: number;
  per_pair_loss?: number[];
  d_mean_d_policy_chosen: number[];
  d_mean_d_policy_rejected: number[];
}

interface LossOracle {
  chosen_lengths: number[];
  rejected_lengths: number[];
  reference_chosen: number[];
  reference_rejected: number[];
  cases: LossCase[];
}

describe("preference losses", () => {
  const oracle = oracleJson<LossOracle>("preference_losses.json");

  // TRL leaves label smoothing out of sigmoid: what those cases hold is conservative DPO (Mitchell, 2023).
  const peer = (type: LossType, smoothing: number) =>
    type === "sigmoid" && smoothing > 0 ? "conservative DPO, where TRL does not smooth" : "TRL";

  test.each(
    oracle.cases.map(
      (each) =>
        [each.loss_type, each.beta, each.label_smoothing, peer(each.loss_type, each.label_smoothing), each] as const,
    ),
  )("%s, beta %d, smoothing %d agrees with %s", (type, beta, labelSmoothing, _, each) => {
    const result = preferenceLoss(
      { terms: [{ type, weight: 1 }], beta, labelSmoothing, discopopTau: each.discopop_tau ?? 0.05 },
      {
        policyChosen: Float64Array.from(each.policy_chosen),
        policyRejected: Float64Array.from(each.policy_rejected),
        referenceChosen: Float64Array.from(oracle.reference_chosen),
        referenceRejected: Float64Array.from(oracle.reference_rejected),
        chosenLengths: Int32Array.from(oracle.chosen_lengths),
        rejectedLengths: Int32Array.from(oracle.rejected_lengths),
      },
    );
    const mean = result.pairLosses.reduce((sum, value) => sum + value, 0) / result.pairLosses.length;
    expect(Math.abs(mean - each.mean_loss)).toBeLessThan(1e-9 * Math.max(1, Math.abs(each.mean_loss)));
    expect(largestDifference(result.dChosen, each.d_mean_d_policy_chosen)).toBeLessThan(1e-9);
    expect(largestDifference(result.dRejected, each.d_mean_d_policy_rejected)).toBeLessThan(1e-9);
    // TRL's sft term is one number for the batch; here each pair carries its own tokens' share of it.
    if (each.per_pair_loss === undefined || type === "sft") return;
    for (const [i, loss] of each.per_pair_loss.entries()) {
      expect(Math.abs((result.pairLosses[i] as number) - loss)).toBeLessThan(1e-9 * Math.max(1, Math.abs(loss)));
    }
  });
});
