import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { failure, oracle, put, scratch } from "@tempora/testing";
import type { SchemaElement } from "hyparquet";
import { parquetWriteBuffer } from "hyparquet-writer";
import { describe, expect, test } from "vitest";
import { readAllRows } from "./datasets.ts";

const rowsOf = async (name: string, content: string | Uint8Array) => readAllRows(await put(name, content));
const refusal = async (name: string, content: string | Uint8Array) => {
  const file = await put(name, content);
  return { file, error: await failure(() => readAllRows(file)) };
};

describe("JSON lines", () => {
  test("rows carry the number of their line; blank lines, CRLF, a byte order mark and a missing last line end pass", async () => {
    const text = '\uFEFF{"a": 1}\r\n\r\n{"a": 2}\n   \n{"a": "x\\r\\n"}';
    expect(await rowsOf("rows.jsonl", text)).toEqual([
      { row: 1, value: { a: 1 } },
      { row: 3, value: { a: 2 } },
      { row: 5, value: { a: "x\r\n" } },
    ]);
  });

  test("only a line feed ends a row; long, emoji and exotic texts survive any chunking", async () => {
    const texts = ["\u2028\u2029\u0085", "👩‍👩‍👧‍👦🇩🇪", "日本語".repeat(200_000), "", "e\u0301\u0000"];
    const rows = await rowsOf("rows.ndjson", texts.map((text) => JSON.stringify({ text })).join("\n"));
    expect(rows.map(({ value }) => value.text)).toEqual(texts);
  });

  test("gzip is read by its ending", async () => {
    const rows = await rowsOf("rows.jsonl.gz", gzipSync('{"a": 1}\n{"a": 2}\n'));
    expect(rows).toEqual([
      { row: 1, value: { a: 1 } },
      { row: 2, value: { a: 2 } },
    ]);
  });
});

describe("JSON", () => {
  test("a list of objects, whatever its layout", async () => {
    expect(await rowsOf("rows.json", '\uFEFF\n [\n{"a": 1},\n {"a":\n 2}]\n')).toEqual([
      { row: 1, value: { a: 1 } },
      { row: 2, value: { a: 2 } },
    ]);
    expect(await rowsOf("rows.json.gz", gzipSync('[{"a": 1}]'))).toEqual([{ row: 1, value: { a: 1 } }]);
  });

  test("lines under the ending .json", async () => {
    expect(await rowsOf("rows.json", '{"a": 1}\n{"a": 2}\n')).toHaveLength(2);
  });
});

describe("Parquet", () => {
  const list = (name: string, element: SchemaElement[]): SchemaElement[] => [
    { name, repetition_type: "OPTIONAL", converted_type: "LIST", num_children: 1 },
    { name: "list", repetition_type: "REPEATED", num_children: 1 },
    ...element,
  ];
  const text = (name: string): SchemaElement => ({
    name,
    type: "BYTE_ARRAY",
    converted_type: "UTF8",
    repetition_type: "OPTIONAL",
  });
  const turn: SchemaElement[] = [
    { name: "element", repetition_type: "OPTIONAL", num_children: 2 },
    text("role"),
    text("content"),
  ];
  const id: SchemaElement[] = [{ name: "element", type: "INT64", repetition_type: "OPTIONAL" }];

  test("conversations, ids of 64 bits and missing values over several row groups", async () => {
    const rows = Array.from({ length: 25 }, (_, i) => ({
      prompt: [
        { role: "user", content: `question ${i} 👩‍👧` },
        { role: "assistant", content: "\uFEFF" },
      ],
      ids: [i, 2],
      note: i % 2 === 0 ? null : "odd",
    }));
    const buffer = parquetWriteBuffer({
      columnData: [
        { name: "prompt", data: rows.map(({ prompt }) => prompt) },
        { name: "ids", data: rows.map(({ ids }) => ids.map(BigInt)) },
        { name: "note", data: rows.map(({ note }) => note) },
      ],
      schema: [{ name: "root", num_children: 3 }, ...list("prompt", turn), ...list("ids", id), text("note")],
      rowGroupSize: 10,
    });
    const read = await rowsOf("rows.parquet", new Uint8Array(buffer));
    expect(read).toEqual(rows.map((value, i) => ({ row: i + 1, value })));
  });

  test("a damaged file is named", async () => {
    const { file, error } = await refusal("rows.parquet", "PAR1 and then nothing");
    expect(error.what).toMatch(/^Cannot read the Parquet file: /);
    expect(error.where).toEqual({ file });
  });
});

describe("faults are named with file and row", () => {
  test("a file that is missing, a folder, or of an unknown kind", async () => {
    const folder = await scratch();
    const file = join(folder, "none.jsonl");
    expect((await failure(() => readAllRows(file))).message).toBe(
      `Cannot read the dataset: it does not exist (${file}). Check the path.`,
    );
    const unknown = await refusal("rows.txt", "a,b");
    expect(unknown.error.message).toBe(
      `Not a dataset format that Tempora knows: ".txt" (${unknown.file}). Give a file that ends in ` +
        ".jsonl, .ndjson, .json, .csv, .tsv, .parquet (all but the last also with .gz), or a folder of them.",
    );
    expect((await refusal("rows.parquet.gz", "")).error.what).toContain('".parquet.gz"');
  });

  test.each(["rows.jsonl", "rows.json"])("no rows in %s", async (name) => {
    const { file, error } = await refusal(name, name === "rows.json" ? "[]" : "\n\n");
    expect(error.message).toBe(`The dataset is empty (${file}). Give a file with at least one row.`);
  });

  test("a broken row", async () => {
    const { file, error } = await refusal("rows.jsonl", '{"a": 1}\n{"a": \n');
    expect(error.what).toMatch(/^Not valid JSON: /);
    expect(error.where).toEqual({ file, row: 2 });
    const list = await refusal("rows.json", '[{"a": 1},]');
    expect(list.error.where).toEqual({ file: list.file });
  });

  test("a row that is no object", async () => {
    const { file, error } = await refusal("rows.jsonl", '{"a": 1}\n["b"]\n');
    expect(error.message).toContain(`A row is a JSON object, not a list (${file}, row 2). Write rows such as`);
    expect((await refusal("rows.json", '["text"]')).error.what).toBe('A row is a JSON object, not "text"');
  });

  test("text that is not UTF-8", async () => {
    const { file, error } = await refusal("rows.jsonl", Buffer.from([0x7b, 0x7d, 0x0a, 0xff, 0xfe, 0x0a]));
    expect(error.message).toBe(`The text is not UTF-8 (${file}, row 2). Convert the file to UTF-8.`);
  });

  test("a gzip file that is cut off, and one that is none", async () => {
    const whole = gzipSync(await readFile(oracle("preference.jsonl")));
    const cut = await refusal("rows.jsonl.gz", whole.subarray(0, whole.length / 2));
    expect(cut.error.what).toMatch(/^The gzip file is damaged: /);
    expect(cut.error.where).toEqual({ file: cut.file });
    expect((await refusal("rows.jsonl.gz", '{"a": 1}\n')).error.what).toMatch(/^The gzip file is damaged: /);
  });
});
