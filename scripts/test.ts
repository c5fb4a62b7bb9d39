// All tests: the native executables, then vitest; the last line sums them up.
//   bun run test                    everything
//   bun run test packages/engine    vitest only, files whose path contains one of the arguments
//   bun run test --native           the native executables only
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { root, run, SetupError, say } from "./setup/command.ts";
import { runNativeTests } from "./test/native.ts";
import { addCounts, type Counts, summaryLine, vitestCounts } from "./test/summary.ts";

async function runVitest(filters: readonly string[]): Promise<Counts> {
  const folder = mkdtempSync(join(tmpdir(), "tempora-test-"));
  const report = join(folder, "vitest.json");
  try {
    const vitest = join(root, "node_modules/vitest/vitest.mjs");
    const reporters = ["--reporter=default", "--reporter=json", `--outputFile.json=${report}`];
    const code = await run([process.execPath, vitest, "run", ...reporters, ...filters], { stdout: "inherit" });
    return vitestCounts(existsSync(report) ? readFileSync(report, "utf8") : null, code);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

async function nativeCounts(): Promise<Counts> {
  try {
    return await runNativeTests(join(root, "native/build"), { emulated: true });
  } catch (error) {
    if (!(error instanceof SetupError)) throw error;
    say(`tempora: ${error.message}`);
    return { passed: 0, failed: 1 };
  }
}

async function main(args: readonly string[]): Promise<number> {
  const nativeOnly = args.includes("--native");
  const filters = args.filter((arg) => arg !== "--native");
  const counts: Counts[] = [];
  if (filters.length === 0) counts.push(await nativeCounts());
  if (!nativeOnly) counts.push(await runVitest(filters));
  const sum = addCounts(counts);
  console.log(`\n${summaryLine(sum)}`);
  return sum.failed === 0 ? 0 : 1;
}

process.exitCode = await main(process.argv.slice(2));
