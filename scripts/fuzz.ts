/**
 * Hostile input for everything that reads: `bun run fuzz [--inputs 500000] [--only NAME,NAME] [--seed 7] [--jobs 2] [--minutes 30]`. Each parser gets so
 * many inputs, made by mutation from good ones and from those that came to a function or branch of the parser first or came out in a new
 * way; it may return, or fail with a TemporaError. Anything else is a finding: another error, a crash, more than a second, or memory that
 * stays or has no bound. Each reads in a process of its own that is watched: where it ends or hangs, the input is reported and the round
 * goes on behind it. A finding prints the file that shows it. Prints counts, what of the parsers' code was come to and, last, "N passed, N failed".
 */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { namesOf, wholeNumber } from "./arguments.ts";
import { type Coverage, inWords, united } from "./fuzz/instrument.ts";
import { filesOf, sources } from "./fuzz/sources.ts";
import { type Finding, memoryFolder, readBatch } from "./fuzz/watch.ts";

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
const names = namesOf("--only", values.only, Object.keys(sources));
const limits = { seconds: 20, bytes: 4 * 2 ** 30 };
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
  coverage: Coverage;
  /** Findings by their kind. */
  kinds: Map<string, number>;
}

function report(name: string, counts: Counts, found: Finding): void {
  const seen = (counts.kinds.get(found.kind) ?? 0) + 1;
  counts.kinds.set(found.kind, seen);
  if (seen > 1) return;
  const kept = join(tmpdir(), `tempora-fuzz-${name}-${counts.kinds.size}`);
  writeFileSync(kept, found.input);
  console.log(`  ${name}: ${found.wrong} (${kept})`);
}

async function fuzzTarget(name: string): Promise<Counts> {
  const counts: Counts = {
    inputs: 0,
    taken: 0,
    slowest: 0,
    outcomes: new Set(),
    grownMiB: 0,
    coverage: {},
    kinds: new Map(),
  };
  const begun = performance.now();
  const corpus = mkdtempSync(join(memoryFolder, "tempora-fuzz-corpus-"));
  const module = join(import.meta.dirname, "fuzz", "targets.ts");
  const order = { module, name, files: filesOf(sources[name] ?? []), seed: Number(values.seed), corpus };
  while (counts.inputs < inputs && performance.now() < until) {
    const count = Math.min(batch, inputs - counts.inputs);
    const { next, whole } = await readBatch({ ...order, from: counts.inputs, count }, limits, (found) =>
      report(name, counts, found),
    );
    counts.inputs = next;
    if (whole === null) continue;
    counts.taken += whole.taken;
    counts.slowest = Math.max(counts.slowest, whole.slowest);
    counts.grownMiB = Math.max(counts.grownMiB, whole.grownMiB);
    counts.coverage = united(counts.coverage, whole.coverage);
    for (const outcome of whole.outcomes) counts.outcomes.add(outcome);
  }
  rmSync(corpus, { recursive: true });
  if (counts.grownMiB > 300) counts.kinds.set("memory that stays", 1);
  const seconds = (performance.now() - begun) / 1000;
  const words = [
    `${counts.inputs} inputs, ${counts.taken} taken, ${counts.outcomes.size} ways to come out`,
    inWords(counts.coverage),
    `slowest ${counts.slowest.toFixed(0)} ms, memory +${counts.grownMiB.toFixed(0)} MiB, ${seconds.toFixed(0)} s`,
  ];
  console.log(`${counts.kinds.size === 0 ? "ok    " : "failed"}  ${name.padEnd(12)} ${words.join(", ")}`);
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
console.log(`${read} inputs by seed ${values.seed}`);
console.log(`${all.filter(({ kinds }) => kinds.size === 0).length} passed, ${found} failed`);
process.exit(found === 0 ? 0 : 1);
