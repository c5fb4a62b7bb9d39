// All tests that want a CUDA device; fails where there is none. First the native executables, which need neither Bun nor
// oneDNN, and compute-sanitizer over their small cases; then the addon from Bun: the oracles, and test/gpu.
//   bun run test:gpu             everything
//   bun run test:gpu --native    the native executables only
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { availableParallelism } from "node:os";
import { dirname, join } from "node:path";
import { findNvcc } from "./cuda-toolkit.ts";
import { buildAddon } from "./setup/addon.ts";
import { root, run, SetupError, say } from "./setup/command.ts";
import { runTest } from "./test/native.ts";
import { addCounts, type Counts, summaryLine } from "./test/summary.ts";

const buildFolder = join(root, "native/build-cuda");
const executables = ["cuda_ops_test", "cuda_engine_test"];
/** Cases small enough for a tool that slows kernels down a hundredfold. */
const sanitizedCases = ["rms_norm", "head of a small vocabulary", "T=1 ", "row_product 1x3", "top 5 of 3", "adamw"];

function requireNvcc(): string {
  const nvcc = findNvcc();
  if (nvcc !== null) return nvcc;
  throw new SetupError(
    "There is no nvcc: install the CUDA toolkit, set CUDACXX to its nvcc, or fetch one for compiling by " +
      "`bun scripts/cuda-toolkit.ts`, and run the command again",
  );
}

async function buildNative(nvcc: string): Promise<void> {
  const options = ["-DTEMPORA_CPU=OFF", "-DTEMPORA_CUDA=ON"];
  const configure = ["cmake", "-S", join(root, "native"), "-B", buildFolder, "-G", "Ninja", ...options];
  const build = ["cmake", "--build", buildFolder, "--target", "tempora_gpu_tests", "--parallel"];
  for (const command of [configure, [...build, String(availableParallelism())]]) {
    const code = await run(command, { env: { CUDACXX: nvcc } });
    if (code !== 0) throw new SetupError(`The GPU tests could not be built (exit code ${code}, see above)`);
  }
}

/** The tests say why there is no device; that is one failure, not a pass. */
async function nativeCounts(): Promise<Counts> {
  const counts: Counts[] = [];
  for (const name of executables) {
    console.log(`\n${name}`);
    counts.push(await runTest(join(buildFolder, "gpu", name), {}));
  }
  return addCounts(counts);
}

async function sanitizerCounts(nvcc: string): Promise<Counts> {
  const beside = join(dirname(nvcc), "compute-sanitizer");
  const sanitizer = existsSync(beside) ? beside : Bun.which("compute-sanitizer");
  if (sanitizer === null) {
    console.log("\ncompute-sanitizer is not installed: accesses out of bounds and races were not looked for");
    return { passed: 0, failed: 0 };
  }
  let failed = 0;
  for (const tool of ["memcheck", "racecheck"]) {
    for (const name of sanitizedCases) {
      console.log(`\ncompute-sanitizer --tool ${tool}, cases "${name}"`);
      const command = ["--tool", tool, "--error-exitcode", "1", join(buildFolder, "gpu/cuda_ops_test"), name];
      if (spawnSync(sanitizer, command, { stdio: "inherit" }).status !== 0) failed++;
    }
  }
  return { passed: 2 * sanitizedCases.length - failed, failed };
}

async function addonCounts(nvcc: string): Promise<Counts> {
  process.env.TEMPORA_CUDA = "ON";
  process.env.CUDACXX = nvcc;
  await buildAddon(root);
  const vitest = join(root, "node_modules/vitest/vitest.mjs");
  const command = [process.execPath, vitest, "run", "--config", join(root, "vitest.gpu.config.ts")];
  const code = await run(command, { stdout: "inherit", env: { TEMPORA_TEST_DEVICE: "cuda" } });
  return code === 0 ? { passed: 1, failed: 0 } : { passed: 0, failed: 1 };
}

async function main(nativeOnly: boolean): Promise<number> {
  try {
    const nvcc = requireNvcc();
    say(`tempora: building the GPU tests by ${nvcc}`);
    await buildNative(nvcc);
    const counts = [await nativeCounts()];
    if (counts[0]?.failed === 0) {
      counts.push(await sanitizerCounts(nvcc));
      if (!nativeOnly) counts.push(await addonCounts(nvcc));
    }
    const sum = addCounts(counts);
    console.log(`\n${summaryLine(sum)}`);
    return sum.failed === 0 ? 0 : 1;
  } catch (error) {
    if (!(error instanceof SetupError)) throw error;
    say(`tempora: ${error.message}`);
    return 1;
  }
}

process.exitCode = await main(process.argv.includes("--native"));
