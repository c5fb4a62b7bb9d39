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

describe("JsonlLog", () => {
  test("keeps rows over processes and appends after them", async () => {
    const file = join(await scratch(), "runs", "events.jsonl");
    const first = await JsonlLog.open<{ n: number }>(file);
    expect(first.rows).toEqual([]);
    await first.append([{ n: 1 }, { n: 2 }]);
    await first.append([]);
    await first.close();
    await first.close();
    const second = await JsonlLog.open<{ n: number }>(file);
    expect(second.rows).toEqual([{ n: 1 }, { n: 2 }]);
    await second.append([{ n: 3 }]);
    expect(second.rows).toHaveLength(3);
    await second.close();
    expect(await readFile(file, "utf8")).toBe('{"n":1}\n{"n":2}\n{"n":3}\n');
  });

  test("a torn last line is dropped wherever the cut fell", async () => {
    const whole = '{"n":1}\n{"text":"日本"}\n';
    const bytes = Buffer.from(whole);
    for (let length = 0; length <= bytes.length; length++) {
      const file = await put("log.jsonl", bytes.subarray(0, length));
      const log = await JsonlLog.open<unknown>(file);
      const complete = bytes.subarray(0, length).toString("latin1").split("\n").length - 1;
      expect(log.rows).toEqual([{ n: 1 }, { text: "日本" }].slice(0, complete));
      await log.append([{ next: true }]);
      await log.close();
      const lines = (await readFile(file, "utf8")).trimEnd().split("\n");
      expect(lines.map((line) => JSON.parse(line))).toEqual([...log.rows.slice(0, complete), { next: true }]);
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
