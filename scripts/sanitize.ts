// The native tests under sanitizers, each kind in a build folder of its own.
//   bun run sanitize              addresses, leaks and undefined behaviour
//   bun run sanitize --threads    data races; wants clang with its runtimes and OpenMP library
import { existsSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { root, run, SetupError, say } from "./setup/command.ts";
import { runNativeTests } from "./test/native.ts";
import { summaryLine } from "./test/summary.ts";

interface Sanitizer {
  folder: string;
  options: readonly string[];
  env: Readonly<Record<string, string>>;
}

const memory: Sanitizer = {
  folder: "build-sanitize",
  options: ["-DTEMPORA_SANITIZE=address,undefined"],
  env: { ASAN_OPTIONS: "detect_leaks=1:strict_string_checks=1", UBSAN_OPTIONS: "print_stacktrace=1" },
};

/**
 * By clang: its OpenMP library tells the sanitizer of its barriers, by a tool named Archer, where gcc's is taken for one race.
 * oneDNN and its own OpenMP library are not instrumented, so nothing is said of what happens within them.
 */
async function threads(): Promise<Sanitizer> {
  const archer = await archerFile();
  return {
    folder: "build-sanitize-threads",
    options: ["-DTEMPORA_SANITIZE=thread", "-DCMAKE_CXX_COMPILER=clang++"],
    env: { TSAN_OPTIONS: "ignore_noninstrumented_modules=1", OMP_TOOL_LIBRARIES: archer, OMP_NUM_THREADS: "4" },
  };
}

async function archerFile(): Promise<string> {
  const clang = Bun.which("clang++");
  if (clang !== null) {
    // lib/clang/VERSION, beside which its libraries lie.
    const asked = Bun.spawn([clang, "-print-resource-dir"], { stdout: "pipe", stderr: "ignore" });
    const file = join((await new Response(asked.stdout).text()).trim(), "../../libarcher.so");
    if (existsSync(file)) return file;
  }
  throw new SetupError(
    "Data races are looked for by clang and its OpenMP library with Archer, which are not here (on Debian and Ubuntu: apt-get install clang libclang-rt-dev libomp-dev)",
  );
}

async function configure({ folder, options }: Sanitizer): Promise<void> {
  const common = ["-DTEMPORA_CUDA=OFF", "-DCMAKE_BUILD_TYPE=RelWithDebInfo"];
  const folders = ["-S", join(root, "native"), "-B", join(root, "native", folder)];
  const code = await run(["cmake", ...folders, "-G", "Ninja", ...common, ...options]);
  if (code !== 0) throw new SetupError(`CMake could not configure the sanitized build (exit code ${code}, see above)`);
}

async function main(): Promise<number> {
  const { values } = parseArgs({ options: { threads: { type: "boolean", default: false } } });
  try {
    const sanitizer = values.threads ? await threads() : memory;
    await configure(sanitizer);
    const counts = await runNativeTests(join(root, "native", sanitizer.folder), {
      emulated: false,
      env: sanitizer.env,
    });
    console.log(`\n${summaryLine(counts)}`);
    return counts.failed === 0 ? 0 : 1;
  } catch (error) {
    if (!(error instanceof SetupError)) throw error;
    say(`tempora: ${error.message}`);
    return 1;
  }
}

process.exitCode = await main();
