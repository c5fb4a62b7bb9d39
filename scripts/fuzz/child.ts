/**
 * Gives a target its inputs from one index on: `bun child.ts TARGET SEED FROM COUNT MAP`. What is being read lies in the mapped file MAP
 * (index and length as f64, then the bytes), so that whoever watches has it even when this process has ended or hangs. Prints a line of
 * JSON for each finding and one for the whole.
 */
import { TemporaError } from "@tempora/errors";
import { below, mutated, seedInput } from "./mutate.ts";
import { type Target, targets } from "./targets.ts";

const [name, seed, from, count, map] = process.argv.slice(2) as [string, string, string, string, string];
const target = targets[name];
if (target === undefined) throw new Error(`no target ${name}`);
const shared = Bun.mmap(map, { shared: true });
const header = new Float64Array(shared.buffer, shared.byteOffset, 2);

/** What came out, its numbers and quotations aside: so many ways of the code were taken. */
const outcomes = new Map<string, number>();
/** Inputs that were the first to come out in some way are changed further. */
const corpus = [...target.seeds];
const maxCorpus = 2000;
const kindOf = (text: string) =>
  text
    .replaceAll(/"[^"]*"|'[^']*'|`[^`]*`|\d+/g, "_")
    .replaceAll(/\/\S+/g, "")
    .slice(0, 90);

interface Reading {
  outcome: string;
  /** Null for what is right: a value, or a TemporaError. */
  wrong: string | null;
}

async function readOnce(bytes: Uint8Array): Promise<Reading> {
  try {
    await (target as Target).read(bytes);
    return { outcome: "taken", wrong: null };
  } catch (error) {
    const text = error instanceof Error ? `${error.name}: ${error.message.split("\n")[0]}` : String(error);
    return { outcome: kindOf(text), wrong: error instanceof TemporaError ? null : text };
  }
}

let taken = 0;
let slowest = 0;
let memory = 0;
const [first, last] = [Number(from), Number(from) + Number(count)];
for (let index = first; index < last; index++) {
  seedInput(Number(seed), index);
  const bytes = mutated(below(2) === 0 ? target.seeds : corpus);
  shared.set(bytes, 16);
  header[1] = bytes.length;
  header[0] = index;
  const at = performance.now();
  let { outcome, wrong } = await readOnce(bytes);
  if (outcome === "taken") taken++;
  let took = performance.now() - at;
  if (took > 1000) {
    // On a busy machine that was its scheduler: again.
    const again = performance.now();
    await readOnce(bytes);
    took = Math.min(took, performance.now() - again);
  }
  slowest = Math.max(slowest, took);
  if (took > 1000) wrong = `took ${took.toFixed(0)} ms`;
  if (!outcomes.has(outcome) && corpus.length < maxCorpus) corpus.push(bytes);
  outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
  if (wrong !== null)
    console.log(JSON.stringify({ wrong, kind: kindOf(wrong), input: Buffer.from(bytes).toString("base64") }));
  if (index === first + Math.floor((last - first) / 4)) {
    Bun.gc(true);
    memory = process.memoryUsage().rss;
  }
}
Bun.gc(true);
const grownMiB = (process.memoryUsage().rss - memory) / 2 ** 20;
console.log(JSON.stringify({ taken, slowest, outcomes: [...outcomes.keys()], grownMiB }));
process.exit();
