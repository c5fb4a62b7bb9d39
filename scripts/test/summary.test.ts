import { describe, expect, test } from "vitest";
import { addCounts, nativeCounts, summaryLine, vitestCounts } from "./summary.ts";

describe("nativeCounts", () => {
  test("reads the last line", () => {
    expect(nativeCounts("matmul ok\n12 passed, 0 failed\n", 0)).toEqual({ passed: 12, failed: 0 });
    expect(nativeCounts("12 passed, 2 failed\n", 1)).toEqual({ passed: 12, failed: 2 });
  });

  test("counts a crash, a lying exit code and an empty run as a failure", () => {
    expect(nativeCounts("matmul ok\n", 139)).toEqual({ passed: 0, failed: 1 });
    expect(nativeCounts("12 passed, 0 failed\n", 1)).toEqual({ passed: 12, failed: 1 });
    expect(nativeCounts("12 passed, 0 failed\nthen more", 0)).toEqual({ passed: 0, failed: 1 });
    expect(nativeCounts("0 passed, 0 failed\n", 0)).toEqual({ passed: 0, failed: 1 });
  });
});

describe("vitestCounts", () => {
  const report = (passed: number, failed: number, testResults: object[] = []) =>
    JSON.stringify({ numPassedTests: passed, numFailedTests: failed, testResults });

  test("reads the report", () => {
    expect(vitestCounts(report(5, 0), 0)).toEqual({ passed: 5, failed: 0 });
    expect(vitestCounts(report(5, 2), 1)).toEqual({ passed: 5, failed: 2 });
  });

  test("counts a file that did not load, an unhandled error and a missing report as a failure", () => {
    const unloaded = { status: "failed", name: "a.test.ts", assertionResults: [] };
    expect(vitestCounts(report(5, 0, [unloaded]), 1)).toEqual({ passed: 5, failed: 1 });
    expect(vitestCounts(report(5, 0), 1)).toEqual({ passed: 5, failed: 1 });
    expect(vitestCounts(null, 0)).toEqual({ passed: 0, failed: 1 });
  });
});

test("the summary line adds everything up", () => {
  const sum = addCounts([
    { passed: 1, failed: 2 },
    { passed: 10, failed: 0 },
  ]);
  expect(summaryLine(sum)).toBe("11 passed, 2 failed");
});
