/**
 * What a run of many prompts takes: `bun bench/scale.ts PROMPTS` answers and judges that many with a small model that knows the embedded
 * world's tasks (7 answers, 3 judgements each, self-rewarding, one iteration) and prints peak memory, the time of the run and of its
 * second start, and the size of its report. --model names the world's M0 of an earlier run; without it one is trained.
 */
import { spawn } from "node:child_process";
import { createWriteStream } from "node:fs";
import { mkdtemp, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { createWorld } from "@tempora/world";

const main = join(import.meta.dirname, "..", "packages", "cli", "src", "main.ts");
const { values, positionals } = parseArgs({ allowPositionals: true, options: { model: { type: "string" } } });
const prompts = Number(positionals[0]);
if (!Number.isInteger(prompts) || prompts < 100) throw new Error("usage: bun bench/scale.ts PROMPTS [--model FOLDER]");

const folder = await mkdtemp(join(tmpdir(), "tempora-scale-"));

interface Measured {
  seconds: number;
  /** Highest resident memory, in bytes. */
  peak: number;
  text: string;
}

/** Runs a command of Tempora's to its end. */
async function measured(args: readonly string[]): Promise<Measured> {
  const begun = performance.now();
  const timed = ["-f", "peak %M", process.execPath, main, ...args];
  const child = spawn("/usr/bin/time", timed, { stdio: ["ignore", "pipe", "pipe"] });
  let text = "";
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (chunk: Buffer) => (text += chunk.toString()));
  const code = await new Promise((done) => child.on("close", done));
  if (code !== 0) throw new Error(`tempora ${args.join(" ")} ended with ${code}:\n${text.slice(-2000)}`);
  return { seconds: (performance.now() - begun) / 1000, peak: 1024 * Number(/peak (\d+)/.exec(text)?.[1]), text };
}

async function writePrompts(file: string): Promise<void> {
  const out = createWriteStream(file);
  // A task's text may come twice: a mark makes every prompt its own.
  for (const [index, { text }] of createWorld({ seed: 5 }).prompts("train", prompts).entries()) {
    if (!out.write(`${JSON.stringify({ prompt: text, id: `p${index}` })}\n`))
      await new Promise((done) => out.once("drain", done));
  }
  await new Promise((done) => out.end(done));
}

try {
  const runs = join(folder, "runs");
  let { model } = values;
  if (model === undefined) {
    await measured([
      "train",
      "--iterations",
      "1",
      "--strategy",
      "self-rewarding",
      "--prompts-per-iteration",
      "32",
      "--runs",
      runs,
      "--run",
      "m0",
      "--no-page",
    ]);
    model = join(runs, "m0", "models", "M0");
  }
  const file = join(folder, "prompts.jsonl");
  await writePrompts(file);
  const settings = [
    "sampling.maxNewTokens=16",
    "evaluation.prompts=50",
    "evaluation.sampling.maxNewTokens=16",
    "judge.limits.minJudgements=1000000000",
    "judge.limits.maxFailureRate=1",
    "judge.sampling.maxNewTokens=24",
  ];
  const run = [
    "train",
    "--model",
    model,
    "--prompts",
    file,
    "--strategy",
    "self-rewarding",
    "--iterations",
    "1",
    "--prompts-per-iteration",
    `${prompts}`,
    "--runs",
    runs,
    "--run",
    "scale",
    "--no-page",
    ...settings.flatMap((one) => ["--set", one]),
  ];
  const first = await measured(run);
  const again = await measured(run);
  const { size } = await stat(join(runs, "scale", "report.html"));
  const row = {
    prompts,
    seconds: Math.round(first.seconds),
    peakMiB: Math.round(first.peak / 2 ** 20),
    againSeconds: +again.seconds.toFixed(1),
    againMiB: Math.round(again.peak / 2 ** 20),
    reportMiB: +(size / 2 ** 20).toFixed(2),
  };
  console.log(JSON.stringify(row));
} finally {
  await rm(folder, { recursive: true, force: true });
}
