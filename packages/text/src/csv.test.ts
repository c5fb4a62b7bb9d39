import { gzipSync } from "node:zlib";
import { failure, put } from "@tempora/testing";
import { describe, expect, test } from "vitest";
import { readAllRows } from "./datasets.ts";

const rowsOf = async (content: string | Uint8Array, name = "rows.csv") => readAllRows(await put(name, content));

describe("comma-separated values", () => {
  test("with quotes, line ends and commas inside them, a byte order mark and CRLF", async () => {
    const text = '\uFEFFprompt, chosen ,rejected\r\n"a, b","He said ""yes"".\nTwice.",no\r\n\r\n👩‍👧,"",x\r\n';
    expect(await rowsOf(text)).toEqual([
      { row: 1, value: { prompt: "a, b", chosen: 'He said "yes".\nTwice.', rejected: "no" } },
      { row: 2, value: { prompt: "👩‍👧", chosen: "", rejected: "x" } },
    ]);
  });

  test("whose first column's name is in quotes behind a byte order mark", async () => {
    expect(await rowsOf('\uFEFF"a, b",c\n1,2\n')).toEqual([{ row: 1, value: { "a, b": "1", c: "2" } }]);
  });

  test("by tabs, and zipped", async () => {
    expect(await rowsOf("a\tb\n1,5\t2\n", "rows.tsv")).toEqual([{ row: 1, value: { a: "1,5", b: "2" } }]);
    expect(await rowsOf(gzipSync("a\n1\n"), "rows.csv.gz")).toEqual([{ row: 1, value: { a: "1" } }]);
  });

  test("longer than any chunk, whatever is in it", async () => {
    const texts = Array.from({ length: 3000 }, (_, i) => `日本語 "${i}",\n`.repeat(40));
    const content = `text\n${texts.map((one) => `"${one.replaceAll('"', '""')}"\n`).join("")}`;
    expect((await rowsOf(content)).map(({ value }) => value.text)).toEqual(texts);
  });

  test.each([
    ["a,b\n1,2\n3\n", 2, /^Not valid CSV: .*columns length is 2, got 1/],
    ["a,b\n1,2\n3,4,5\n", 2, /^Not valid CSV: /],
    ['a,b\n1,2\n3,4\n"5,6\n', 3, /^Not valid CSV: .*[Qq]uote/],
    ['a,b\n1,x"y\n', 1, /^Not valid CSV: .*[Qq]uote/],
  ])("that are broken are named with the row: %j", async (text, row, what) => {
    const file = await put("rows.csv", text);
    const error = await failure(() => readAllRows(file));
    expect(error.what).toMatch(what);
    expect(error.where).toEqual({ file, row });
  });

  test("need a header with names, each once, and UTF-8", async () => {
    expect((await failure(() => rowsOf("a,,b\n1,2,3\n"))).what).toBe("A column has no name");
    expect((await failure(() => rowsOf("a,b,a\n1,2,3\n"))).what).toBe("Two columns have the name a");
    expect((await failure(() => rowsOf(Buffer.from([0x61, 0x0a, 0xff, 0x0a])))).what).toBe("The text is not UTF-8");
    expect((await failure(() => rowsOf("a,b\n"))).what).toBe("The dataset is empty");
  });

  test("a damaged gzip file is told as such", async () => {
    const cut = gzipSync("a\n1\n2\n").subarray(0, 15);
    expect((await failure(() => rowsOf(cut, "rows.csv.gz"))).what).toMatch(/^The gzip file is damaged: /);
  });
});
