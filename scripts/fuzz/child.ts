/**
 * Gives a target its inputs from one index on: `bun child.ts ORDER`. What is being read lies in the mapped file of the order (index and
 * length as f64, then the bytes), so that whoever watches has it even when this process has ended or hangs. Prints a line of JSON for each
 * finding and one for the whole.
 */
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { TemporaError } from "@tempora/errors";
import { allow, coverage, instrument, takeFresh } from "./instrument.ts";
import { below, mutated, seedInput } from "./mutate.ts";
import type { Target } from "./targets.ts";
import type { Order } from "./watch.ts";

const { module, name, files, seed, from, count, map, corpus: kept } = JSON.parse(process.argv[2] as string) as Order;
instrument(files);
const { targets } = (await import(module)) as { targets: Record<string, Target> };
const target = targets[name] as Target;
if (target === undefined) throw new Error(`no target ${name}`);
const shared = Bun.mmap(map, { shared: true });
const header = new Float64Array(shared.buffer, shared.byteOffset, 2);

/** What came out, its numbers and quotations aside. */
const outcomes = new Set<string>();
/** Inputs that came to a function or branch first, or were the first to come out in some way, are changed further; later processes go on from them. */
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
  allow(target.steps ?? Infinity);
  try {
    await target.read(bytes);
    return { outcome: "taken", wrong: null };
  } catch (error) {
    const text = error instanceof Error ? `${error.name}: ${error.message.split("\n")[0]}` : String(error);
    return { outcome: kindOf(text), wrong: error instanceof TemporaError ? null : text };
  } finally {
    allow(Infinity);
  }
}

const byNumber = (a: string, b: string) => Number(a) - Number(b);
for (const file of readdirSync(kept).sort(byNumber)) {
  const bytes = readFileSync(join(kept, file));
  corpus.push(bytes);
  outcomes.add((await readOnce(bytes)).outcome);
}
takeFresh();

let taken = 0;
let slowest = 0;
let memory = 0;
for (let index = from; index < from + count; index++) {
  seedInput(seed, index);
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
  if ((takeFresh() > 0 || !outcomes.has(outcome)) && corpus.length < maxCorpus) {
    corpus.push(bytes);
    writeFileSync(join(kept, `${index}`), bytes);
  }
  outcomes.add(outcome);
  if (wrong !== null)
    console.log(JSON.stringify({ wrong, kind: kindOf(wrong), input: Buffer.from(bytes).toString("base64") }));
  if (index === from + Math.floor(count / 4)) {
    Bun.gc(true);
    memory = process.memoryUsage.rss();
  }
}
Bun.gc(true);
const grownMiB = (process.memoryUsage.rss() - memory) / 2 ** 20;
console.log(JSON.stringify({ taken, slowest, outcomes: [...outcomes], grownMiB, coverage: coverage(files) }));
process.exit();
