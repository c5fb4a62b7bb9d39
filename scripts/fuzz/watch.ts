/** Watches a process that reads inputs: how it ends, whether it hangs, and how much memory it takes, each with the input that it was reading. */
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { Coverage } from "./instrument.ts";
import { maxInput } from "./mutate.ts";

/** In memory where the system has a place for it: half a million files are no work for a disk. */
export const memoryFolder = existsSync("/dev/shm") ? "/dev/shm" : tmpdir();

/** What a process is to read. */
export interface Order {
  /** The module that has the targets. */
  module: string;
  name: string;
  /** The files whose functions and branches are counted. */
  files: readonly string[];
  seed: number;
  from: number;
  count: number;
  map: string;
  /** A folder of inputs to change further. */
  corpus: string;
}

export interface Finding {
  wrong: string;
  kind: string;
  input: Uint8Array;
}

export interface Whole {
  taken: number;
  slowest: number;
  outcomes: string[];
  grownMiB: number;
  coverage: Coverage;
}

export interface Limits {
  /** A process that reads one input for so long is ended; loading its libraries counts too. */
  seconds: number;
  /** A process that holds more is ended. */
  bytes: number;
}

export interface Batch {
  /** Behind the last that was read. */
  next: number;
  /** Null where the process did not come to its end. */
  whole: Whole | null;
}

/** Bytes of a process's memory; 0 where the system does not tell. */
function memoryOf(pid: number | undefined): number {
  try {
    return 4096 * Number(readFileSync(`/proc/${pid}/statm`, "utf8").split(" ")[1]);
  } catch {
    return 0;
  }
}

/** Has a process read inputs until all are read, or one ends it. */
export async function readBatch(
  order: Omit<Order, "map">,
  limits: Limits,
  found: (finding: Finding) => void,
): Promise<Batch> {
  const map = join(memoryFolder, `tempora-fuzz-map-${process.pid}-${order.name}`);
  writeFileSync(map, new Uint8Array(16 + maxInput));
  const shared = Bun.mmap(map, { shared: true });
  const header = new Float64Array(shared.buffer, shared.byteOffset, 2);
  header[0] = order.from;
  const child = spawn(process.execPath, [join(import.meta.dirname, "child.ts"), JSON.stringify({ ...order, map })], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  const said = listen(child, found);
  let ended = false;
  const close = new Promise<string>((done) =>
    child.on("close", (code, signal) => {
      ended = true;
      done(signal === null ? `code ${code}` : signal);
    }),
  );
  let limit: string | null = null;
  for (let [last, since] = [-1, performance.now()]; !ended; await Promise.race([close, sleep(100)])) {
    if (header[0] !== last) [last, since] = [header[0] as number, performance.now()];
    else if (said.whole === null && performance.now() - since > 1000 * limits.seconds)
      limit = `does not end in ${limits.seconds} s`;
    if (memoryOf(child.pid) > limits.bytes) limit = `takes more than ${(limits.bytes / 2 ** 20).toFixed(0)} MiB`;
    if (limit !== null) child.kill("SIGKILL");
  }
  const how = await close;
  const index = header[0] as number;
  const input = readFileSync(map).subarray(16, 16 + (header[1] as number));
  rmSync(map);
  if (said.whole !== null) return { next: order.from + order.count, whole: said.whole };
  const wrong = limit ?? `ended its process (${how}): ${said.error.trim().slice(0, 300)}`;
  found({ wrong, kind: wrong.replaceAll(/\d+/g, "_").slice(0, 90), input });
  return { next: index + 1, whole: null };
}

interface Said {
  error: string;
  whole: Whole | null;
}

function listen(child: ChildProcess, found: (finding: Finding) => void): Said {
  const said: Said = { error: "", whole: null };
  let rest = "";
  child.stderr?.on("data", (text: Buffer) => (said.error = (said.error + text).slice(-2000)));
  child.stdout?.on("data", (text: Buffer) => {
    const lines = (rest + text).split("\n");
    rest = lines.pop() as string;
    for (const line of lines) {
      if (!line.startsWith("{")) continue;
      const row = JSON.parse(line);
      if ("wrong" in row) found({ ...row, input: Buffer.from(row.input, "base64") });
      else said.whole = row;
    }
  });
  return said;
}
