/**
 * `bun run bench [--peers] [--only head,step,generation,calls]`: what this machine can do, what Tempora reaches of it,
 * and with --peers what torch, TRL and llama.cpp reach in the same run. Each measurement has a process of its own.
 */
import { availableParallelism, cpus } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { deviceInfo } from "@tempora/engine";
import { TemporaError } from "@tempora/errors";
import { callCost } from "./call-cost.ts";
import { type GenerationMeasurement, generationShape } from "./generation.ts";
import { installPeers, measureLlama, measureTorchHead, measureTrl } from "./peers/peers.ts";
import { jsonLines, run } from "./process.ts";
import type { BenchRow } from "./row.ts";
import { type Ceilings, generationFloor, llama135M, preferenceStepFlops } from "./shapes.ts";
import { type StepMeasurement, stepShape } from "./step.ts";
import { table } from "./table.ts";

const root = join(import.meta.dirname, "..");
const parts = ["head", "step", "generation", "calls"] as const;
type Part = (typeof parts)[number];

interface HeadLine {
  name: string;
  seconds: number;
  floor: number;
}

function say(line: string): void {
  process.stderr.write(`${line}\n`);
}

async function nativeBench(): Promise<{ ceilings: Ceilings; head: HeadLine[] }> {
  say("measuring the machine and the head");
  const build = join(root, "native", "build");
  const jobs = String(availableParallelism());
  await run("cmake", ["--build", build, "--target", "tempora_benches", "--parallel", jobs], {
    remedy: "Run `bun run build` first and look at its messages.",
  });
  const output = await run(join(build, "bench", "ops_bench"), ["--head"], { remedy: "Look at the message above." });
  const lines = jsonLines<Partial<Ceilings & HeadLine>>(output);
  const ceilings = lines.find((line) => line.flops !== undefined);
  if (ceilings === undefined) throw new TemporaError("ops_bench printed no ceilings", { remedy: "Build again." });
  return { ceilings: ceilings as Ceilings, head: lines.filter((line) => line.name !== undefined) as HeadLine[] };
}

/** Runs one of this folder's files in a process of its own and reads what it prints. */
async function own<T>(file: string): Promise<T[]> {
  const output = await run(process.execPath, [join(import.meta.dirname, file)], {
    cwd: root,
    remedy: "Look at the message above.",
  });
  return jsonLines<T>(output);
}

async function headRows(lines: readonly HeadLine[], peers: boolean): Promise<BenchRow[]> {
  const rows: BenchRow[] = lines.map(({ name, seconds, floor }) => ({
    name,
    value: seconds * 1000,
    unit: "ms",
    floor: floor * 1000,
    ratio: floor / seconds,
  }));
  if (peers) {
    say("measuring torch's head");
    const { seconds } = await measureTorchHead();
    const mine = lines[0]?.seconds ?? Number.NaN;
    rows.push({
      name: "torch bf16, forward",
      value: seconds * 1000,
      unit: "ms",
      note: `Tempora is ${(seconds / mine).toFixed(2)} times as fast`,
    });
  }
  return rows;
}

function gigabytes(bytes: number): string {
  return `peak ${(bytes / 1e9).toFixed(2)} GB`;
}

async function stepRows(ceilings: Ceilings, peers: boolean): Promise<BenchRow[]> {
  say("measuring the DPO step");
  const [mine] = await own<StepMeasurement>("step.ts");
  if (mine === undefined) throw new TemporaError("bench/step.ts printed nothing", { remedy: "Run it by itself." });
  const floor = preferenceStepFlops(llama135M, stepShape.pairs, stepShape.prompt, stepShape.response) / ceilings.flops;
  const rows: BenchRow[] = [
    {
      name: "Tempora bf16, cached reference",
      value: mine.stepSeconds,
      unit: "s",
      floor,
      ratio: floor / mine.stepSeconds,
      note: `${mine.pairsPerSecond.toFixed(2)} pairs/s, ${gigabytes(mine.peakBytes)}`,
    },
  ];
  if (!peers) return rows;
  for (const cached of [false, true]) {
    say(`measuring TRL with a ${cached ? "cached" : "live"} reference`);
    const trl = await measureTrl(cached);
    const times = trl.stepSeconds / mine.stepSeconds;
    rows.push({
      name: `TRL bf16, ${cached ? "cached" : "live"} reference`,
      value: trl.stepSeconds,
      unit: "s",
      note: `${trl.pairsPerSecond.toFixed(2)} pairs/s, ${gigabytes(trl.peakBytes)}; Tempora is ${times.toFixed(2)} times as fast`,
    });
  }
  return rows;
}

async function generationRows(ceilings: Ceilings, peers: boolean): Promise<BenchRow[]> {
  say("measuring generation");
  const mine = await own<GenerationMeasurement>("generation.ts");
  const theirs = peers ? await measureLlamaAloud() : [];
  return mine.flatMap(({ samples, tokens, seconds }) => {
    const rate = tokens / seconds;
    const best = tokens / generationFloor(llama135M, { ...generationShape, samples }, ceilings);
    const rows: BenchRow[] = [
      { name: `Tempora bf16, ${samples} samples`, value: rate, unit: "tokens/s", floor: best, ratio: rate / best },
    ];
    const peer = theirs.find((line) => line.samples === samples);
    if (peer !== undefined) {
      const theirRate = peer.tokens / peer.seconds;
      rows.push({
        name: `llama.cpp bf16, ${samples} samples`,
        value: theirRate,
        unit: "tokens/s",
        note: `Tempora is ${(rate / theirRate).toFixed(2)} times as fast`,
      });
    }
    return rows;
  });
}

function measureLlamaAloud(): Promise<GenerationMeasurement[]> {
  say("measuring llama.cpp");
  return measureLlama();
}

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

async function main(): Promise<void> {
  const { values } = parseArgs({ options: { peers: { type: "boolean", default: false }, only: { type: "string" } } });
  const chosen = chosenParts(values.only);
  if (values.peers) await installPeers(say);
  const { ceilings, head } = await nativeBench();
  const info = deviceInfo();
  const date = new Date().toISOString().slice(0, 10);
  console.log(`${date}, ${cpus()[0]?.model ?? "unknown CPU"}, ${info.threads} threads, ${info.cpuKernels} kernels`);
  console.log(
    `bf16 product of 2048: ${(ceilings.flops / 1e12).toFixed(3)} TFLOP/s; copy: `.concat(
      `${(ceilings.bandwidth / 1e9).toFixed(1)} GB/s read and written\n`,
    ),
  );
  const titles: Record<Part, [string, () => Promise<BenchRow[]>]> = {
    head: ["Log-prob head, T = 512, D = 1024, V = 32000, bf16", () => headRows(head, values.peers)],
    step: ["DPO step, 135M, 4 pairs of 128 + 2 x 128 tokens", () => stepRows(ceilings, values.peers)],
    generation: [
      "Generation, 135M, 128 prompt + 128 new tokens, samples of one prompt",
      () => generationRows(ceilings, values.peers),
    ],
    calls: ["A call from TypeScript", callCost],
  };
  for (const part of chosen) {
    const [title, measure] = titles[part];
    console.log(table(title, await measure()));
  }
}

try {
  await main();
} catch (error) {
  say(error instanceof TemporaError ? `error: ${error.message}` : String(error));
  process.exitCode = 1;
}
