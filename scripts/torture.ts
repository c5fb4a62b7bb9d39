/**
 * Runs that are disturbed at random: `bun run torture --minutes 30 [--seed 7] [--only full,kill]`. Each is killed, stopped, ended by SIGTERM, run twice at
 * once, and given a full disk, too few files, too little memory, errors of the disk, a jumping clock, and changed bytes in its store; in the end it must have the
 * bytes of a run that nobody disturbed. An error is right for a lasting fault only: it must name what is wrong, and the run must go on when
 * that is gone. Prints "N passed, N failed". Wants root for the full disk, strace for errors of the disk, faketime for the clock; what is
 * missing is left out, and said.
 */
import { type ChildProcess, execFileSync, spawn, spawnSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { mkdir, mkdtemp, rename, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { artifacts } from "../packages/run/src/loop/tiny.ts";
import { tinyConfig } from "../test/support/tiny-run.ts";
import { namesOf } from "./arguments.ts";

const main = join(import.meta.dirname, "..", "packages", "cli", "src", "main.ts");
const { values } = parseArgs({
  options: { minutes: { type: "string", default: "30" }, seed: { type: "string" }, only: { type: "string" } },
});
const minutes = Number(values.minutes);
const seed = Number(values.seed ?? Math.floor(Math.random() * 2 ** 31));
if (!(minutes > 0) || !Number.isSafeInteger(seed))
  throw new Error("usage: bun run torture --minutes MINUTES [--seed NUMBER]");

/** Mulberry32: what a seed did it does again, as far as the machine's own timing allows. */
let state = seed;
function random(): number {
  state = (state + 0x6d2b79f5) | 0;
  let t = Math.imul(state ^ (state >>> 15), 1 | state);
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
  return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
}
const pick = <T>(list: readonly T[]): T => list[Math.floor(random() * list.length)] as T;
const has = (program: string) => spawnSync("sh", ["-c", `command -v ${program}`]).status === 0;

interface Ended {
  code: number | null;
  output: string;
}

interface Started {
  child: ChildProcess;
  ended: Promise<Ended>;
}

interface Place {
  folder: string;
  config: string;
  runs: string;
}

/** Starts the run, behind another program where one is given ("strace …"). */
function start({ config, runs }: Place, before: readonly string[] = []): Started {
  const command = [
    ...before,
    process.execPath,
    main,
    "train",
    config,
    "--strategy",
    "temporal",
    "--runs",
    runs,
    "--run",
    "run",
    "--no-page",
  ];
  const child = spawn(command[0] as string, command.slice(1), { stdio: ["ignore", "pipe", "pipe"], detached: true });
  let output = "";
  for (const stream of [child.stdout, child.stderr])
    stream?.on("data", (chunk: Buffer) => (output += chunk.toString()));
  const ended = new Promise<Ended>((done) => child.on("close", (code) => done({ code, output })));
  return { child, ended };
}

const signal = ({ child }: Started, name: NodeJS.Signals) => {
  try {
    process.kill(-(child.pid as number), name);
  } catch {
    // It has ended.
  }
};

/** A fault while the run goes on or before it starts; returns what is wrong, or null. */
type Fault = (place: Place, wait: number) => Promise<string | null>;

async function endsBy(place: Place, wait: number, name: NodeJS.Signals, code: number | null): Promise<string | null> {
  const started = start(place);
  await Promise.race([sleep(wait), started.ended]);
  signal(started, name);
  const ended = await started.ended;
  // A signal that comes before the program has begun, and has said anything, ends it as signals do.
  const early = ended.code === null && ended.output === "";
  return ended.code === code || ended.code === 0 || early
    ? null
    : `ended with ${ended.code} by ${name}:\n${ended.output}`;
}

/** With a fault that lasts: the run ends, or it fails with an error that names the cause. */
async function failsBy(place: Place, before: readonly string[], cause: RegExp): Promise<string | null> {
  const { code, output } = await start(place, before).ended;
  if (code === 0) return null;
  return cause.test(output) ? null : `ended with ${code} and does not name the cause (${cause.source}):\n${output}`;
}

const faults: Record<string, Fault> = {
  kill: (place, wait) => endsBy(place, wait, "SIGKILL", null),
  term: (place, wait) => endsBy(place, wait, "SIGTERM", 143),
  interrupt: (place, wait) => endsBy(place, wait, "SIGINT", 130),
  stop: async (place, wait) => {
    const started = start(place);
    await Promise.race([sleep(wait), started.ended]);
    signal(started, "SIGSTOP");
    await sleep(1500);
    signal(started, "SIGCONT");
    await Promise.race([sleep(wait), started.ended]);
    signal(started, "SIGKILL");
    const { code, output } = await started.ended;
    return code === null || code === 0 ? null : `ended with ${code} after it was stopped:\n${output}`;
  },
  twice: async (place, wait) => {
    const first = start(place);
    await Promise.race([sleep(wait), first.ended]);
    const second = await start(place).ended;
    signal(first, "SIGKILL");
    const { code, output } = await first.ended;
    // Whichever locks the run first has it.
    if (code !== null && code !== 0 && !/in use by/.test(output))
      return `ended with ${code} beside another process:\n${output}`;
    return second.code === 0 || /in use by/.test(second.output)
      ? null
      : `a second process ended with ${second.code}:\n${second.output}`;
  },
  files: (place) =>
    failsBy(
      place,
      ["sh", "-c", `ulimit -n ${24 + Math.floor(random() * 16)}; exec "$@"`, "sh"],
      /EMFILE|too many open files|descriptors|Too many/i,
    ),
  memory: async (place) => {
    const limit = 120_000 + Math.floor(random() * 400_000);
    const { code, output } = await start(place, ["sh", "-c", `ulimit -d ${limit}; exec "$@"`, "sh"]).ended;
    // Where Bun itself has none left for its own work it crashes, and says so: that is a kill at another moment.
    const crashed = code === null || /bun\.report|panic/.test(output);
    if (code === 0 || crashed || /memory|the system has no|Thread creation failed/i.test(output)) return null;
    return `ended with ${code} at ${limit} KiB of data and does not name the cause:\n${output}`;
  },
  changed: async (place, wait) => {
    const killed = await endsBy(place, wait, "SIGKILL", null);
    if (killed !== null) return killed;
    const file = pick(storeFiles(place));
    if (file === undefined) return null;
    const bytes = readFileSync(file);
    if (bytes.length === 0) return null;
    const at = Math.floor(random() * bytes.length);
    bytes[at] = (bytes[at] as number) ^ (1 << Math.floor(random() * 8));
    writeFileSync(file, bytes);
    const { code, output } = await start(place).ended;
    if (code === 0) return null;
    const named = /where: (\S+?\.store\/[^/\s]+\/[^/\s,]+)/.exec(output)?.[1];
    if (named === undefined) return `a changed byte in ${file} ended it with ${code} and no stage is named:\n${output}`;
    await rm(named, { recursive: true });
    return null;
  },
};

if (process.getuid?.() === 0) {
  faults.full = async (place) => {
    // A disk with room for what is there and for a part of the rest. What the failed process left is gone on with.
    const disk = join(place.folder, "disk");
    const left = join(place.folder, "left");
    await mkdir(disk, { recursive: true });
    await mkdir(place.runs, { recursive: true });
    const used = Number(execFileSync("du", ["-sk", place.runs], { encoding: "utf8" }).split("\t")[0]);
    const size = Math.ceil(1.1 * used) + 400 + Math.floor(random() * 5000);
    execFileSync("mount", ["-t", "tmpfs", "-o", `size=${size}k`, "tmpfs", disk]);
    try {
      execFileSync("cp", ["-a", place.runs, join(disk, "runs")]);
      const wrong = await failsBy({ ...place, runs: join(disk, "runs") }, [], /ENOSPC|no space|of disk|disk is full/i);
      execFileSync("cp", ["-a", join(disk, "runs"), left]);
      await rm(place.runs, { recursive: true });
      await rename(left, place.runs);
      return wrong;
    } finally {
      execFileSync("umount", ["-l", disk]);
    }
  };
}
if (has("strace")) {
  faults.disk = (place) => {
    const call = pick(["write", "pwrite64", "fsync", "rename", "openat"]);
    const inject = `inject=${call}:error=EIO:when=${20 + Math.floor(random() * 400)}+${50 + Math.floor(random() * 300)}`;
    return failsBy(place, ["strace", "-f", "-qq", "-o", "/dev/null", "-e", inject], /EIO|i\/o error|input\/output/i);
  };
}
if (has("faketime")) {
  faults.clock = async (place, wait) => {
    const started = start(place, ["faketime", "-f", pick(["+3d x20", "-400d", "+1h x0.2"])]);
    await Promise.race([sleep(2 * wait), started.ended]);
    signal(started, "SIGKILL");
    const { code, output } = await started.ended;
    return code === null || code === 0 ? null : `ended with ${code} under another clock:\n${output}`;
  };
}

const chosen = namesOf("--only", values.only, Object.keys(faults));

/** Files of the store that a run reads. */
function storeFiles({ runs }: Place): string[] {
  const store = join(runs, ".store");
  if (!existsSync(store)) return [];
  return readdirSync(store, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && !entry.name.startsWith(".lock") && entry.name !== "inputs.json")
    .map((entry) => join(entry.parentPath, entry.name))
    .sort();
}

async function newPlace(folder: string): Promise<Place> {
  await mkdir(folder, { recursive: true });
  const config = join(dirname(folder), "torture.config.ts");
  return { folder, config, runs: join(folder, "runs") };
}

const scratch = await mkdtemp(join(tmpdir(), "tempora-torture-"));
writeFileSync(
  join(scratch, "torture.config.ts"),
  `export default ${JSON.stringify({ ...tinyConfig, date: "2026-01-31", saveStateSeconds: 0.2 })};\n`,
);
console.log(`seed ${seed}; faults: ${chosen.join(", ")}`);
const missing = ["full (root)", "disk (strace)", "clock (faketime)"].filter(
  (one) => !((one.split(" ")[0] as string) in faults),
);
if (missing.length > 0) console.log(`left out: ${missing.join(", ")}`);

const whole = await newPlace(join(scratch, "whole"));
const undisturbed = await start(whole).ended;
if (undisturbed.code !== 0) throw new Error(undisturbed.output);
const expected = await artifacts(join(whole.runs, "run"));

let passed = 0;
let failed = 0;
const counts: Record<string, number> = {};
const until = performance.now() + 60_000 * minutes;
for (let round = 1; performance.now() < until; round++) {
  const place = await newPlace(join(scratch, `round-${round}`));
  const done: string[] = [];
  let wrong: string | null = null;
  for (let left = 2 + Math.floor(random() * 4); left > 0 && wrong === null; left--) {
    const name = pick(chosen);
    done.push(name);
    counts[name] = (counts[name] ?? 0) + 1;
    wrong = await (faults[name] as Fault)(place, 50 + random() * 4000);
  }
  if (wrong === null) {
    const last = await start(place).ended;
    if (last.code !== 0) wrong = `does not go on when the fault is gone (${last.code}):\n${last.output}`;
    else if (JSON.stringify(await artifacts(join(place.runs, "run"))) !== JSON.stringify(expected))
      wrong = "has other bytes in the end";
  }
  if (wrong === null) passed++;
  else failed++;
  console.log(
    `${wrong === null ? "ok    " : "failed"}  ${done.join(", ")}${wrong === null ? "" : `\n${wrong}\nleft in ${place.folder}`}`,
  );
  if (wrong === null) await rm(place.folder, { recursive: true });
}
if (failed === 0) await rm(scratch, { recursive: true });
console.log(
  Object.entries(counts)
    .map(([name, count]) => `${name} ${count}`)
    .join(", "),
);
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed === 0 ? 0 : 1;
