// The native tests under the address and undefined-behaviour sanitizers, in a build folder of their own.
import { join } from "node:path";
import { root, run, SetupError, say } from "./setup/command.ts";
import { runNativeTests } from "./test/native.ts";
import { summaryLine } from "./test/summary.ts";

const buildFolder = join(root, "native/build-sanitize");

async function configure(): Promise<void> {
  const options = ["-DTEMPORA_SANITIZE=address,undefined", "-DTEMPORA_CUDA=OFF", "-DCMAKE_BUILD_TYPE=RelWithDebInfo"];
  const code = await run(["cmake", "-S", join(root, "native"), "-B", buildFolder, "-G", "Ninja", ...options]);
  if (code !== 0) throw new SetupError(`CMake could not configure the sanitized build (exit code ${code}, see above)`);
}

async function main(): Promise<number> {
  try {
    await configure();
    const counts = await runNativeTests(buildFolder, {
      emulated: false,
      env: { ASAN_OPTIONS: "detect_leaks=1:strict_string_checks=1", UBSAN_OPTIONS: "print_stacktrace=1" },
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
