import { readdir, readFile, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { failure, put, scratch } from "@tempora/testing";
import { describe, expect, test } from "vitest";
import { writeJson, writeJsonl, writeWhole } from "./files.ts";
import { JsonlLog } from "./jsonl-log.ts";

describe("writing a file whole", () => {
  test("makes missing folders, replaces what was there and leaves nothing else", async () => {
    const file = join(await scratch(), "deep", "file.json");
    await writeWhole(file, "old");
    await writeJson(file, { a: [1], text: "👩‍👧" });
    expect(await readFile(file, "utf8")).toBe('{\n  "a": [\n    1\n  ],\n  "text": "👩‍👧"\n}\n');
    await writeWhole(file, Uint8Array.of(1, 2));
    expect(await readFile(file)).toEqual(Buffer.from([1, 2]));
    expect(await readdir(dirname(file))).toEqual(["file.json"]);
  });

  test("rows become lines, also more than fit in one write", async () => {
    const file = join(await scratch(), "rows.jsonl");
    const rows = Array.from({ length: 30_000 }, (_, i) => ({ i, text: "é".repeat(40) }));
    await writeJsonl(file, rows);
    const lines = (await readFile(file, "utf8")).split("\n");
    expect(lines).toHaveLength(30_001);
    expect(lines.slice(0, -1).map((line) => JSON.parse(line))).toEqual(rows);
    await writeJsonl(file, []);
    expect(await readFile(file, "utf8")).toBe("");
  });

  test("rows that break off leave the old file, no trace, and the error as it was", async () => {
    const file = await put("rows.jsonl", "old\n");
    const error = new Error("stopped");
    async function* rows(): AsyncGenerator<unknown> {
      yield { a: 1 };
      throw error;
    }
    await expect(writeJsonl(file, rows())).rejects.toBe(error);
    await expect(writeJsonl(file, [undefined])).rejects.toThrow("A row must be a JSON value, not undefined");
    expect(await readFile(file, "utf8")).toBe("old\n");
    expect(await readdir(dirname(file))).toEqual(["rows.jsonl"]);
  });

  test("the remains of a killed writer are overwritten", async () => {
    const file = join(await scratch(), "rows.jsonl");
    await writeFile(`${file}.partial`, "torn and longer than what follows");
    await writeJsonl(file, [1]);
    expect(await readFile(file, "utf8")).toBe("1\n");
    expect(await readdir(dirname(file))).toEqual(["rows.jsonl"]);
  });

  test("a place that cannot be written is named with the reason", async () => {
    const inside = join(await put("file", ""), "rows.jsonl");
    const error = await failure(() => writeJsonl(inside, [1]));
    expect(error.message).toMatch(
      /^Cannot write the file: (it is not a folder|something of that name is in the way) \(/,
    );
    expect(error.where).toEqual({ file: inside });
    expect((await failure(async () => writeWhole(await scratch(), "x"))).what).toMatch(/^Cannot write the file: /);
    expect((await failure(() => JsonlLog.open(inside))).message).toMatch(/^Cannot open the log: /);
  });
});

/** A log, and the values that it tells. */
async function openLog<T>(file: string): Promise<{ log: JsonlLog<T>; rows: T[]; spans: [number, number][] }> {
  const rows: T[] = [];
  const spans: [number, number][] = [];
  const log = await JsonlLog.open<T>(file, ({ value, start, end }) => {
    rows.push(value);
    spans.push([start, end]);
  });
  return { log, rows, spans };
}

describe("JsonlLog", () => {
  test("keeps rows over processes, appends after them and tells each with its bytes", async () => {
    const file = join(await scratch(), "runs", "events.jsonl");
    const first = await openLog<{ n: number }>(file);
    expect(first.rows).toEqual([]);
    await first.log.append([{ n: 1 }, { n: 2 }]);
    await first.log.append([]);
    await first.log.close();
    await first.log.close();
    const second = await openLog<{ n: number }>(file);
    expect(second.rows).toEqual([{ n: 1 }, { n: 2 }]);
    await second.log.append([{ n: 33 }]);
    expect(second.rows).toEqual([{ n: 1 }, { n: 2 }, { n: 33 }]);
    await second.log.close();
    const text = '{"n":1}\n{"n":2}\n{"n":33}\n';
    expect(await readFile(file, "utf8")).toBe(text);
    expect(second.spans.map(([start, end]) => text.slice(start, end))).toEqual(text.match(/.*\n/g));
  });

  test("reads rows that are longer than a read, one by one", async () => {
    const rows = [0, 1, 2].map((n) => ({ n, text: "é".repeat(300_000) }));
    const file = await put("log.jsonl", rows.map((row) => `${JSON.stringify(row)}\n`).join(""));
    const opened = await openLog<(typeof rows)[number]>(file);
    expect(opened.rows).toEqual(rows);
    await opened.log.close();
  });

  test("a torn last line is dropped wherever the cut fell", async () => {
    const whole = '{"n":1}\n{"text":"日本"}\n';
    const bytes = Buffer.from(whole);
    for (let length = 0; length <= bytes.length; length++) {
      const file = await put("log.jsonl", bytes.subarray(0, length));
      const { log, rows } = await openLog<unknown>(file);
      const complete = bytes.subarray(0, length).toString("latin1").split("\n").length - 1;
      expect(rows).toEqual([{ n: 1 }, { text: "日本" }].slice(0, complete));
      await log.append([{ next: true }]);
      await log.close();
      const lines = (await readFile(file, "utf8")).trimEnd().split("\n");
      expect(lines.map((line) => JSON.parse(line))).toEqual(rows);
      expect(rows.at(-1)).toEqual({ next: true });
    }
  });

  test("appends in flight at once stay in order, and those before close are kept", async () => {
    const file = join(await scratch(), "log.jsonl");
    const log = await JsonlLog.open<number>(file);
    const done = Array.from({ length: 50 }, (_, i) => log.append([i]));
    await log.close();
    await Promise.all(done);
    expect((await readFile(file, "utf8")).trimEnd().split("\n").map(Number)).toEqual(done.map((_, i) => i));
    await expect(log.append([1])).rejects.toThrow(/was closed before this append/);
  });

  test("a damaged row in the middle is named", async () => {
    const file = await put("log.jsonl", '{"n":1}\n{"n":\n{"n":3}\n');
    expect((await failure(() => JsonlLog.open(file))).message).toBe(
      `This row of the log is damaged (${file}, row 2). Remove the file to do its work again.`,
    );
  });
});
