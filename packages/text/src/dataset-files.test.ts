import { mkdir, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { gzipSync } from "node:zlib";
import { failure, put, scratch } from "@tempora/testing";
import { parquetWriteBuffer } from "hyparquet-writer";
import { describe, expect, test } from "vitest";
import { readAllRows } from "./datasets.ts";

/** A folder with files of the given contents. */
async function folderOf(files: Record<string, string | Uint8Array>): Promise<string> {
  const folder = await scratch();
  for (const [name, content] of Object.entries(files)) {
    await mkdir(dirname(join(folder, name)), { recursive: true });
    await writeFile(join(folder, name), content);
  }
  return folder;
}

const parquet = (...a: number[]) =>
  new Uint8Array(parquetWriteBuffer({ columnData: [{ name: "a", data: a, type: "INT32" }] }));
const lines = (...a: number[]) => a.map((n) => `{"a": ${n}}\n`).join("");
const values = async (path: string) => (await readAllRows(path)).map(({ value }) => value.a);

describe("a folder of shards", () => {
  const shard = (index: number) => `data/train-0000${index}-of-00003.parquet`;

  test("is read in the order of its names, rows with the file and the row that they have there", async () => {
    const folder = await folderOf({
      [shard(2)]: parquet(5),
      [shard(0)]: parquet(1, 2),
      [shard(1)]: parquet(3, 4),
      "README.md": "# Data",
      "dataset_info.json": "{}",
      ".cache/x.parquet": "no data",
    });
    const rows = await readAllRows(folder);
    expect(rows.map(({ value }) => value.a)).toEqual([1, 2, 3, 4, 5]);
    expect(rows[3]).toMatchObject({ row: 2, file: join(folder, shard(1)) });
  });

  test("may be JSON lines, zipped or not, and CSV", async () => {
    expect(await values(await folderOf({ "b.jsonl": lines(3), "a.jsonl": lines(1, 2) }))).toEqual([1, 2, 3]);
    expect(
      await values(await folderOf({ "a.jsonl.gz": gzipSync(lines(1)), "b.jsonl.gz": gzipSync(lines(2)) })),
    ).toEqual([1, 2]);
    expect(await values(await folderOf({ "0.csv": "a\n1\n", "1.csv": "a\n2\n" }))).toEqual(["1", "2"]);
  });

  test("with a shard missing is refused by its name", async () => {
    const folder = await folderOf({ [shard(0)]: parquet(1), [shard(2)]: parquet(2) });
    const error = await failure(() => readAllRows(folder));
    expect(error.what).toBe(`The shard ${shard(1)} is missing: 2 of 3 are there`);
    expect(await values(join(folder, "data", "*.parquet"))).toEqual([1, 2]);
  });

  test("of two sets of shards misses what neither set has whole", async () => {
    const set = (name: string, index: number) => `${name}-0000${index}-of-00002.jsonl`;
    const [first, second] = [set("a", 0), set("b", 1)];
    const error = await failure(async () => readAllRows(await folderOf({ [first]: lines(1), [second]: lines(2) })));
    expect(error.what).toBe(`The shard ${set("a", 1)} is missing: 1 of 2 are there`);
    const whole = await folderOf({
      [first]: lines(1),
      [set("a", 1)]: lines(2),
      [set("b", 0)]: lines(3),
      [second]: lines(4),
    });
    expect(await values(whole)).toEqual([1, 2, 3, 4]);
  });

  test("whose endings are in capitals is read too", async () => {
    expect(await values(await folderOf({ "A.JSONL": lines(1), "B.JSONL.GZ": gzipSync(lines(2)) }))).toEqual([1, 2]);
  });

  test.each([
    ["several splits: test, train", { "data/train.jsonl": lines(1), "data/test.jsonl": lines(2) }, /data\/test\*\.$/],
    ["files of several formats: .csv, .jsonl", { "a.csv": "a\n1\n", "a.jsonl": lines(1) }, /\*\.csv\.$/],
    [
      "several datasets, in the folders: main, socratic",
      { "main/a.jsonl": lines(1), "socratic/a.jsonl": lines(1) },
      /main\.$/,
    ],
    ["several datasets, in the folders: ., more", { "a.jsonl": lines(1), "more/a.jsonl": lines(1) }, /\/\*\.jsonl\.$/],
  ])("that holds %s is refused with a way to name one", async (what, files, remedy) => {
    const error = await failure(async () => readAllRows(await folderOf(files as Record<string, string>)));
    expect(error.what).toBe(`The folder holds ${what}`);
    expect(error.remedy).toMatch(remedy);
  });

  test("of Arrow files, or of nothing, is refused", async () => {
    const arrow = await folderOf({ "data-00000-of-00001.arrow": "x", "state.json": "{}", "dataset_info.json": "{}" });
    expect((await failure(() => readAllRows(arrow))).remedy).toContain("save_to_disk");
    expect((await failure(async () => readAllRows(await scratch()))).what).toBe(
      "The folder holds no rows that Tempora reads",
    );
  });
});

describe("a pattern", () => {
  test("names files, in the order of their names", async () => {
    const folder = await folderOf({ "train-1.jsonl": lines(2), "train-0.jsonl": lines(1), "test-0.jsonl": lines(9) });
    expect(await values(join(folder, "train-*.jsonl"))).toEqual([1, 2]);
    // More than a file system would happen to list in order.
    const many = Array.from({ length: 24 }, (_, k) => (7 * k) % 24);
    const shards = many.map((k) => [`${String(k).padStart(2, "0")}.jsonl`, lines(k)] as const);
    const sorted = many.toSorted((a, b) => a - b);
    expect(await values(join(await folderOf(Object.fromEntries(shards)), "*.jsonl"))).toEqual(sorted);
    expect((await failure(() => readAllRows(join(folder, "dev-*.jsonl")))).what).toBe("No file matches the pattern");
  });

  test("is not seen in the name of a file that exists", async () => {
    expect(await values(await put("rows[1].jsonl", lines(1)))).toEqual([1]);
  });
});
