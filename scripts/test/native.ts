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

/** Runs one executable, showing its output while it goes. */
export function runTest(file: string, env: Record<string, string>, args: readonly string[] = []): Promise<Counts> {
  return new Promise((done, fail) => {
    const child = spawn(file, args, {
      cwd: root,
      env: { ...process.env, ...env },
      stdio: ["ignore", "pipe", "inherit"],
    });
    let output = "";
    child.stdout.setEncoding("utf8");
    child.stdout.on("data", (text: string) => {
      output += text;
      process.stdout.write(text);
    });
    child.on("error", fail);
    child.on("close", (code, signal) => {
      if (signal !== null) console.log(`${basename(file)} was ended by ${signal}`);
      done(nativeCounts(output, code ?? 1));
    });
  });
}

/** Builds the native tests in a build folder that CMake has configured, and runs them one after another. */
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
  for (const name of names) {
    console.log(`\n${name}`);
    counts.push(await runTest(join(buildFolder, "test", name), options.env ?? {}));
  }
  return addCounts(counts);
}
