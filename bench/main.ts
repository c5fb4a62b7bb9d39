/**
 * `bun run bench [--peers] [--only head,sampler,step,generation,calls] [--model FILE.gguf] [--json]`: what this machine
 * can do, what Tempora reaches of it, and with --peers what torch, TRL and llama.cpp reach in the same run. Each
 * measurement has a process of its own. --model: generation from that model's weights instead of random ones.
 */
import { cpus } from "node:os";
import { parseArgs } from "node:util";
import { deviceInfo } from "@tempora/engine";
import { TemporaError } from "@tempora/errors";
import { callCost } from "./call-cost.ts";
import { generationRows } from "./generation-rows.ts";
import { headRows, measureMachine, samplerRows } from "./native-rows.ts";
import { installPeers } from "./peers/peers.ts";
import { say } from "./process.ts";
import type { BenchRow } from "./row.ts";
import { stepRows } from "./step-rows.ts";
import { table } from "./table.ts";

const parts = ["head", "sampler", "step", "generation", "calls"] as const;
type Part = (typeof parts)[number];

const titles: Record<Part, string> = {
  head: "Log-prob head, T = 512, D = 1024, V = 32000, bf16",
  sampler: "Sampler, a row of 131072 logits on one thread, the slowest setting",
  step: "DPO step, 135M, 4 pairs of 128 + 2 x 128 tokens",
  generation: "Generation, 135M or --model, 128 new tokens, samples of one prompt, temperature 0.7, top p 0.9",
  calls: "A call from TypeScript",
};

function chosenParts(only: string | undefined): Part[] {
  if (only === undefined) return [...parts];
  return only.split(",").map((name) => {
    const part = parts.find((known) => known === name.trim());
    if (part === undefined) {
      throw new TemporaError(`There is no benchmark "${name}"`, { remedy: `Choose among ${parts.join(", ")}.` });
    }
    return part;
  });
}

function options() {
  try {
    return parseArgs({
      options: {
        peers: { type: "boolean", default: false },
        json: { type: "boolean", default: false },
        only: { type: "string" },
        model: { type: "string" },
      },
    }).values;
  } catch (cause) {
    throw new TemporaError(cause instanceof Error ? cause.message : String(cause), {
      remedy: `The bench takes --peers, --json, --only ${parts.join(",")} (or some of them) and --model FILE.gguf.`,
      cause,
    });
  }
}

async function main(): Promise<void> {
  const values = options();
  const chosen = chosenParts(values.only);
  if (values.peers) await installPeers(say);
  const { ceilings, head } = await measureMachine();
  const measure: Record<Part, () => Promise<BenchRow[]>> = {
    head: () => headRows(head, values.peers),
    sampler: () => samplerRows(ceilings),
    step: () => stepRows(values.peers),
    generation: () => generationRows(values.peers, values.model),
    calls: callCost,
  };
  const info = deviceInfo();
  const machine = {
    date: new Date().toISOString().slice(0, 10),
    cpu: cpus()[0]?.model ?? "unknown CPU",
    threads: info.threads,
    kernels: info.cpuKernels,
    ...ceilings,
  };
  if (!values.json) {
    console.log(`${machine.date}, ${machine.cpu}, ${machine.threads} threads, ${machine.kernels} kernels`);
    console.log(
      `bf16 product of 2048: ${(ceilings.flops / 1e12).toFixed(3)} TFLOP/s; copy: `.concat(
        `${(ceilings.bandwidth / 1e9).toFixed(1)} GB/s read and written\n`,
      ),
    );
  }
  const results = [];
  for (const part of chosen) {
    const rows = await measure[part]();
    results.push({ part, title: titles[part], rows });
    if (!values.json) console.log(table(titles[part], rows));
  }
  if (values.json) console.log(JSON.stringify({ machine, results }, null, 2));
}

try {
  await main();
} catch (error) {
  say(error instanceof TemporaError ? `error: ${error.message}` : String(error));
  process.exitCode = 1;
}
