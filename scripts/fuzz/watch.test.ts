import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { coverage, inWords } from "./instrument.ts";
import { filesOf, sources } from "./sources.ts";
import { type Finding, readBatch } from "./watch.ts";

/** What is found by a target that breaks, in its first inputs. */
async function findings(name: string, count = 12): Promise<{ found: Finding[]; next: number; whole: boolean }> {
  const found: Finding[] = [];
  const corpus = mkdtempSync(join(tmpdir(), "tempora-fuzz-test-"));
  const module = join(import.meta.dirname, "faulty-targets.ts");
  const order = { module, name, files: [], seed: 1, from: 0, count, corpus };
  const limits = { seconds: 3, bytes: 2 ** 30 };
  const { next, whole } = await readBatch(order, limits, (finding) => found.push(finding));
  return { found, next, whole: whole !== null };
}

test.each([
  ["crash", /^ended its process \(SIG/],
  ["hang", /^does not end in 3 s$/],
  ["memory", /^takes more than 1024 MiB$/],
])("an input that makes a parser %s is reported, and what is behind it is still to be read", async (name, wrong) => {
  const { found, next, whole } = await findings(name);
  expect(found).toHaveLength(1);
  expect(found[0]?.wrong).toMatch(wrong);
  expect(found[0]?.input[0]).toBe("!".charCodeAt(0));
  expect(whole).toBe(false);
  expect(next).toBeGreaterThan(0);
  expect(next).toBeLessThan(13);
});

test.each([
  ["slow", /^took \d{4} ms$/],
  ["error", /^RangeError: out of bounds$/],
])("an input on which a parser is %s is reported, and the others are read", async (name, wrong) => {
  const { found, whole } = await findings(name, 4);
  expect(whole).toBe(true);
  expect(found.length).toBeGreaterThan(0);
  for (const one of found) {
    expect(one.wrong).toMatch(wrong);
    expect(one.input[0]).toBe("!".charCodeAt(0));
  }
});

test("what was come to in a parser is counted, and kept inputs lead the next process there", async () => {
  const found: Finding[] = [];
  const corpus = mkdtempSync(join(tmpdir(), "tempora-fuzz-test-"));
  const files = filesOf(sources.score as string[]);
  const module = join(import.meta.dirname, "targets.ts");
  const order = { module, name: "score", files, seed: 1, corpus };
  const limits = { seconds: 20, bytes: 2 ** 32 };
  const reached = async (from: number, count: number) => {
    const { whole } = await readBatch({ ...order, from, count }, limits, (finding) => found.push(finding));
    return Object.values(whole?.coverage ?? {}).map(({ branches }) => branches.replaceAll("0", "").length)[0] as number;
  };
  const first = await reached(0, 300);
  expect(first).toBeGreaterThan(20);
  expect(await reached(300, 1)).toBeGreaterThanOrEqual(first);
  expect(found).toEqual([]);
});

test("a parser's file that was never loaded counts as one that was not come to", () => {
  const files = filesOf(["packages/text/src/csv.ts"]);
  expect(inWords(coverage(files))).toMatch(/^0 of [1-9]\d* functions and 0 of [1-9]\d* branches$/);
});

test("every pattern of a parser's files finds some", () => {
  for (const patterns of Object.values(sources)) expect(filesOf(patterns).length).toBeGreaterThan(0);
});
