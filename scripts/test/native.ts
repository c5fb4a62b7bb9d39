import { spawn } from "node:child_process";
import { availableParallelism } from "node:os";
import { basename, join } from "node:path";
import { root, run, SetupError, say } from "../setup/command.ts";
import { addCounts, type Counts, nativeCounts } from "./summary.ts";

/**
 * Names of the test executables: one for each native/test/*_test.cpp, and on x64 those that run again with AMX's tiles
 * emulated (native/cmake/Executables.cmake). Those named cuda_* run the CUDA kernels on an emulated device; its fibers
 * are not for sanitizers, so they can be left out.
 */
export function nativeTestNames(emulated: boolean): string[] {
  const sources = new Bun.Glob("native/test/*_test.cpp").scanSync(root);
  const names = [...sources].map((path) => basename(path, ".cpp"));
  const tiles = process.arch === "x64" ? ["amx_ops_test", "amx_attention_tree_test", "amx_attention_cached_test"] : [];
  return [...names, ...tiles].filter((name) => emulated || !name.startsWith("cuda_")).sort();
}

function write(text: string): void {
  process.stdout.write(text);
}

/** Runs one executable, showing its output while it goes. */
export function runTest(
  file: string,
  env: Record<string, string>,
  args: readonly string[] = [],
  show: (text: string) => unknown = write,
): Promise<Counts> {
  return new Promise((done, fail) => {
    const child = spawn(file, args, {
      cwd: root,
      env: { ...process.env, ...env },
      stdio: ["ignore", "pipe", "pipe"],
    });
    let output = "";
    child.stdout.setEncoding("utf8");
    child.stderr.setEncoding("utf8");
    child.stderr.on("data", show);
    child.stdout.on("data", (text: string) => {
      output += text;
      show(text);
    });
    child.on("error", fail);
    child.on("close", (code, signal) => {
      if (signal !== null) show(`${basename(file)} was ended by ${signal}\n`);
      done(nativeCounts(output, code ?? 1));
    });
  });
}

/** Runs executables beside each other: the first one's output is shown while it goes, the others' behind it. */
async function runBeside(files: readonly string[], env: Record<string, string>): Promise<Counts[]> {
  const runs = files.map((file, index) => {
    const heading = `\n${basename(file)}\n`;
    const output = [heading];
    if (index === 0) write(heading);
    const counts = runTest(file, env, [], index === 0 ? write : (text) => output.push(text));
    return { counts, output };
  });
  await Promise.allSettled(runs.map((one) => one.counts));
  for (const one of runs.slice(1)) write(one.output.join(""));
  return Promise.all(runs.map((one) => one.counts));
}

/**
 * Kernels of an emulated device run on one thread, so that as many of these tests run at once as there are cores; all
 * others run alone.
 */
function groupsOf(names: readonly string[]): string[][] {
  const groups: string[][] = [];
  for (const name of names) {
    const last = groups.at(-1);
    const joins = name.startsWith("cuda_") && last?.[0]?.startsWith("cuda_") && last.length < availableParallelism();
    if (joins) last?.push(name);
    else groups.push([name]);
  }
  return groups;
}

/** Builds the native tests in a build folder that CMake has configured, and runs them. */
export async function runNativeTests(
  buildFolder: string,
  options: { emulated: boolean; env?: Record<string, string> },
): Promise<Counts> {
  const names = nativeTestNames(options.emulated);
  if (names.length === 0) throw new SetupError("native/test has no *_test.cpp: nothing would be tested");
  say("tempora: building the native tests");
  const jobs = String(availableParallelism());
  const targets = options.emulated ? ["tempora_tests"] : names;
  const code = await run(["cmake", "--build", buildFolder, "--parallel", jobs, "--target", ...targets]);
  if (code !== 0) throw new SetupError(`The native tests could not be built (exit code ${code}, see above)`);
  const counts: Counts[] = [];
  for (const group of groupsOf(names)) {
    const files = group.map((name) => join(buildFolder, "test", name));
    counts.push(...(await runBeside(files, options.env ?? {})));
  }
  return addCounts(counts);
}
