/** How many tests passed and failed. */
export interface Counts {
  passed: number;
  failed: number;
}

export function addCounts(counts: readonly Counts[]): Counts {
  return {
    passed: counts.reduce((sum, count) => sum + count.passed, 0),
    failed: counts.reduce((sum, count) => sum + count.failed, 0),
  };
}

export function summaryLine(counts: Counts): string {
  return `${counts.passed} passed, ${counts.failed} failed`;
}

/** The counts of a test executable, from its last line and exit code. Whatever ended without them is one failure. */
export function nativeCounts(output: string, exitCode: number): Counts {
  const last = output.trimEnd().split("\n").at(-1) ?? "";
  const match = /^(\d+) passed, (\d+) failed$/.exec(last.trim());
  const counts = { passed: Number(match?.[1] ?? 0), failed: Number(match?.[2] ?? 0) };
  if (counts.failed === 0 && (exitCode !== 0 || counts.passed === 0)) counts.failed = 1;
  return counts;
}

interface VitestReport {
  numPassedTests: number;
  numFailedTests: number;
  testResults: { status: string; name: string; assertionResults: unknown[] }[];
}

/**
 * The counts of a vitest run, from its JSON report and exit code. A file that could not be loaded has no tests: it
 * counts as one failure, and so does a run that failed for another reason (no report, an unhandled rejection).
 */
export function vitestCounts(report: string | null, exitCode: number): Counts {
  const counts = { passed: 0, failed: 0 };
  if (report !== null) {
    const parsed = JSON.parse(report) as VitestReport;
    const unloaded = parsed.testResults.filter(
      (file) => file.status === "failed" && file.assertionResults.length === 0,
    );
    counts.passed = parsed.numPassedTests;
    counts.failed = parsed.numFailedTests + unloaded.length;
  }
  if (counts.failed === 0 && (exitCode !== 0 || counts.passed === 0)) counts.failed = 1;
  return counts;
}
