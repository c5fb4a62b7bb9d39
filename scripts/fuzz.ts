/**
 * Hostile input for everything that reads: `bun run fuzz [--inputs 500000] [--only NAME,NAME] [--seed 7] [--jobs 2] [--minutes 30]`. Each parser gets so
 * many inputs, made by mutation from good ones and from those that came out in a new way; it may return, or fail with a
 * TemporaError. Anything else is a finding: another error, a crash, more than a second, or memory that stays. Each reads in a process of its
 * own that is watched: where it ends or hangs, the input is reported and the round goes on behind it. A finding prints the
 * file that shows it. Parquet, which is read on a thread of its own that is ended where it does not end, gets a hundredth of
 * the inputs. Prints counts and, last, "N passed, N failed".
 */
import { spawn } from "node:child_process";
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { namesOf, wholeNumber } from "./arguments.ts";
import { maxInput } from "./fuzz/mutate.ts";
import { memoryFolder, targetNames, targets } from "./fuzz/targets.ts";

const { values } = parseArgs({
  options: {
    inputs: { type: "string", default: "500000" },
    only: { type: "string" },
    seed: { type: "string", default: "1" },
    jobs: { type: "string", default: "1" },
    minutes: { type: "string" },
  },
});
const inputs = wholeNumber("--inputs", values.inputs);
const jobs = wholeNumber("--jobs", values.jobs);
const names = namesOf("--only", values.only, targetNames);
/** A process that reads one input for so long is ended; loading its libraries counts too. */
const hangSeconds = 20;
/** A process takes so many inputs: what leaks over millions is another's question than what one input does. */
const batch = 100_000;
const until =
  values.minutes === undefined ? Infinity : performance.now() + 60_000 * wholeNumber("--minutes", values.minutes);

interface Counts {
  inputs: number;
  taken: number;
  slowest: number;
  outcomes: Set<string>;
  grownMiB: number;
  /** Findings by their kind. */
  kinds: Map<string, number>;
}

function report(name: string, counts: Counts, found: { wrong: string; kind: string; input: Uint8Array }): void {
  const seen = (counts.kinds.get(found.kind) ?? 0) + 1;
  counts.kinds.set(found.kind, seen);
  if (seen > 1) return;
  const kept = join(tmpdir(), `tempora-fuzz-${name}-${counts.kinds.size}`);
  writeFileSync(kept, found.input);
  console.log(`  ${name}: ${found.wrong} (${kept})`);
}

/** Gives a child the inputs [from, from + count); returns the index behind the last that was read. */
async function readBatch(name: string, counts: Counts, from: number, count: number): Promise<number> {
  const map = join(memoryFolder, `tempora-fuzz-map-${process.pid}-${name}`);
  writeFileSync(map, new Uint8Array(16 + maxInput));
  const shared = Bun.mmap(map, { shared: true });
  const header = new Float64Array(shared.buffer, shared.byteOffset, 2);
  header[0] = from;
  const child = spawn(
    process.execPath,
    [join(import.meta.dirname, "fuzz", "child.ts"), name, values.seed, `${from}`, `${count}`, map],
    { stdio: ["ignore", "pipe", "pipe"] },
  );
  let rest = "";
  let said = "";
  let whole = false;
  child.stderr.on("data", (text: Buffer) => (said = (said + text).slice(-2000)));
  child.stdout.on("data", (text: Buffer) => {
    const lines = (rest + text).split("\n");
    rest = lines.pop() as string;
    for (const line of lines) {
      if (!line.startsWith("{")) continue;
      const row = JSON.parse(line);
      if ("wrong" in row) report(name, counts, { ...row, input: Buffer.from(row.input, "base64") });
      else {
        whole = true;
        counts.taken += row.taken;
        counts.slowest = Math.max(counts.slowest, row.slowest);
        counts.grownMiB = Math.max(counts.grownMiB, row.grownMiB);
        for (const outcome of row.outcomes) counts.outcomes.add(outcome);
      }
    }
  });
  let ended = false;
  let hangs = false;
  const close = new Promise<string>((done) =>
    child.on("close", (code, signal) => {
      ended = true;
      done(signal ?? `code ${code}`);
    }),
  );
  for (let [last, since] = [-1, performance.now()]; !ended; await Promise.race([close, sleep(500)])) {
    if (header[0] !== last) [last, since] = [header[0] as number, performance.now()];
    else if (!whole && performance.now() - since > 1000 * hangSeconds) {
      hangs = true;
      child.kill("SIGKILL");
      await close;
    }
  }
  const how = await close;
  const index = header[0] as number;
  const input = readFileSync(map).subarray(16, 16 + (header[1] as number));
  rmSync(map);
  if (whole) return from + count;
  const wrong = hangs ? `does not end in ${hangSeconds} s` : `ended its process (${how}): ${said.trim().slice(0, 300)}`;
  report(name, counts, { wrong, kind: wrong.replaceAll(/\d+/g, "_").slice(0, 90), input });
  return index + 1;
}

async function fuzzTarget(name: string): Promise<Counts> {
  const counts: Counts = {
    inputs: 0,
    taken: 0,
    slowest: 0,
    outcomes: new Set(),
    grownMiB: 0,
    kinds: new Map(),
  };
  const begun = performance.now();
  const total = Math.ceil((targets[name]?.share ?? 1) * inputs);
  while (counts.inputs < total && performance.now() < until)
    counts.inputs = await readBatch(name, counts, counts.inputs, Math.min(batch, total - counts.inputs));
  if (counts.grownMiB > 300) counts.kinds.set("memory that stays", 1);
  const seconds = (performance.now() - begun) / 1000;
  console.log(
    `${counts.kinds.size === 0 ? "ok    " : "failed"}  ${name.padEnd(12)} ${counts.inputs} inputs, ${counts.taken} taken, ${counts.outcomes.size} ways to come out, slowest ${counts.slowest.toFixed(0)} ms, memory +${counts.grownMiB.toFixed(0)} MiB, ${seconds.toFixed(0)} s`,
  );
  return counts;
}

const queue = [...names];
const all: Counts[] = [];
async function worker(): Promise<void> {
  for (let name = queue.shift(); name !== undefined; name = queue.shift()) all.push(await fuzzTarget(name));
}
await Promise.all(Array.from({ length: jobs }, worker));
const found = all.reduce((sum, { kinds }) => sum + kinds.size, 0);
const read = all.reduce((sum, counts) => sum + counts.inputs, 0);
console.log(`${read} inputs`);
console.log(`${all.filter(({ kinds }) => kinds.size === 0).length} passed, ${found} failed`);
process.exit(found === 0 ? 0 : 1);
