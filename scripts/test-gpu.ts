// All tests that want a CUDA device; fails where there is none. First scripts/test-gpu.sh: the native executables, which
// need neither Bun nor oneDNN, and compute-sanitizer over their small cases; then the addon from Bun: the oracles, and
// test/gpu.
//   bun run test:gpu             everything
//   bun run test:gpu --native    the native executables only
//   bun run test:gpu --bench     and the native benches
//   bun run test:gpu --peers     and torch, transformers and PEFT beside them, where python3 (or PYTHON) has them
import { join } from "node:path";
import { findNvcc } from "./cuda-toolkit.ts";
import { buildAddon } from "./setup/addon.ts";
import { root, run, SetupError, say } from "./setup/command.ts";
import { runTest } from "./test/native.ts";
import { addCounts, type Counts, summaryLine } from "./test/summary.ts";

function requireNvcc(): string {
  const nvcc = findNvcc();
  if (nvcc !== null) return nvcc;
  throw new SetupError(
    "There is no nvcc: install the CUDA toolkit, set CUDACXX to its nvcc, or fetch one for compiling by " +
      "`bun scripts/cuda-toolkit.ts`, and run the command again",
  );
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

async function main(options: readonly string[]): Promise<number> {
  try {
    const unknown = options.find((option) => !["--native", "--bench", "--peers"].includes(option));
    if (unknown !== undefined) throw new SetupError(`test:gpu knows --native, --bench and --peers, not ${unknown}`);
    const nvcc = requireNvcc();
    const native = options.filter((option) => option !== "--native");
    const counts = [await runTest(join(root, "scripts/test-gpu.sh"), { CUDACXX: nvcc }, native)];
    if (counts[0]?.failed === 0 && !options.includes("--native")) counts.push(await addonCounts(nvcc));
    const sum = addCounts(counts);
    console.log(`\n${summaryLine(sum)}`);
    return sum.failed === 0 ? 0 : 1;
  } catch (error) {
    if (!(error instanceof SetupError)) throw error;
    say(`tempora: ${error.message}`);
    return 1;
  }
}

process.exitCode = await main(process.argv.slice(2));
