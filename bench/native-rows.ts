import { availableParallelism } from "node:os";
import { join } from "node:path";
import { TemporaError } from "@tempora/errors";
import { measureTorchHead } from "./peers/peers.ts";
import { jsonLines, run, say } from "./process.ts";
import type { BenchRow } from "./row.ts";
import type { Ceilings } from "./shapes.ts";

const build = join(import.meta.dirname, "..", "native", "build");

interface HeadLine {
  name: string;
  seconds: number;
  floor: number;
}

interface SamplerLine {
  logits: string;
  temperature: number;
  topP: number;
  vocabulary: number;
  seconds: number;
}

function nativeBench(program: string, ...flags: string[]): Promise<string> {
  return run(join(build, "bench", program), flags, { remedy: "Look at the message above." });
}

/** Builds the native benches; what this machine reaches, and the head. */
export async function measureMachine(): Promise<{ ceilings: Ceilings; head: HeadLine[] }> {
  say("measuring the machine and the head");
  const jobs = String(availableParallelism());
  await run("cmake", ["--build", build, "--target", "tempora_benches", "--parallel", jobs], {
    remedy: "Run `bun run build` first and look at its messages.",
  });
  const lines = jsonLines<Partial<Ceilings & HeadLine>>(await nativeBench("ops_bench", "--head"));
  const ceilings = lines.find((line) => line.flops !== undefined);
  if (ceilings === undefined) throw new TemporaError("ops_bench printed no ceilings", { remedy: "Build again." });
  return { ceilings: ceilings as Ceilings, head: lines.filter((line) => line.name !== undefined) as HeadLine[] };
}

async function ceilingsNow(): Promise<Ceilings> {
  const [line] = jsonLines<Ceilings>(await nativeBench("ops_bench", "--machine"));
  if (line === undefined) throw new TemporaError("ops_bench printed no ceilings", { remedy: "Build again." });
  return line;
}

/**
 * A measurement, and what the machine reaches at its best right before and right after: where a virtual machine's cores
 * move, both change within seconds.
 */
export async function besideCeilings<T>(measure: () => Promise<T>): Promise<{ measured: T; ceilings: Ceilings }> {
  const before = await ceilingsNow();
  const measured = await measure();
  const after = await ceilingsNow();
  const ceilings = {
    flops: Math.max(before.flops, after.flops),
    bandwidth: Math.max(before.bandwidth, after.bandwidth),
  };
  return { measured, ceilings };
}

export async function headRows(lines: readonly HeadLine[], peers: boolean): Promise<BenchRow[]> {
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

/** A row of logits on one thread: for each kind of logits the settings that take longest. */
export async function samplerRows(ceilings: Ceilings): Promise<BenchRow[]> {
  say("measuring the sampler");
  const lines = jsonLines<SamplerLine>(await nativeBench("sampling_bench"));
  const slowest = new Map<string, SamplerLine>();
  for (const line of lines) {
    if (line.seconds > (slowest.get(line.logits)?.seconds ?? 0)) slowest.set(line.logits, line);
  }
  return [...slowest.values()].map(({ logits, seconds, topP, temperature, vocabulary }) => {
    const floor = (4 * vocabulary) / ceilings.bandwidth;
    return {
      name: logits,
      value: seconds * 1000,
      unit: "ms",
      floor: floor * 1000,
      ratio: floor / seconds,
      note: `at top p ${topP}, temperature ${temperature}; floor: the logits read once`,
    };
  });
}
