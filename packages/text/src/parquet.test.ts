import { brotliCompressSync, gzipSync, zstdCompressSync } from "node:zlib";
import { failure, put } from "@tempora/testing";
import { parquetWriteBuffer } from "hyparquet-writer";
import { expect, test } from "vitest";
import { readParquet } from "./parquet.ts";

/** Three rows whose second page says that it is of a negative size: the decoder goes back and reads it for ever. */
const endless =
  "UEFSMRUGFSgVLFwVBhUAFQYVABUEFQAAAAMHEkQBAAAAYQIAAABiYgMAAABjY2MVBhUcFSBcFQYVABUGFQAVAAAAAAEAAAAsAQAA" +
  "AAIAAAADAAAAFQQZPEgEcm9vdBUEABUMJQIYBnByb21wdCUAABUCJQIYAW4AFgYZHBksJggcFQwZFQAZGAZwcm9tcHQVAhYGFlIW" +
  "ViYIPDYAKANjY2MYAWEAGRwVBhUAFQIAAAAmXhwVAhkVABkYAW4VAhYGFkYWSiZePDYAKAQDAAAAGAQBAAAAABkcFQYVABUCAAAA" +
  "FpgBFgY2oAEAKAloeXBhcnF1ZXQZLBwAABwAAACqAAAAUEFSMQ==";

test("a file whose reading never ends is refused after a while, and others are read beside it", async () => {
  const file = await put("endless.parquet", Buffer.from(endless, "base64"));
  const reading = failure(() => Array.fromAsync(readParquet(file, 1000)));
  const good = new Uint8Array(
    parquetWriteBuffer({ columnData: [{ name: "a", data: [1n, 2n ** 60n], type: "INT64" }] }),
  );
  const rows = await Array.fromAsync(readParquet(await put("good.parquet", good)));
  expect(rows.map(({ value }) => value)).toEqual([{ a: 1 }, { a: (2n ** 60n).toString() }]);
  const { what, where } = await reading;
  expect(what).toBe("Cannot read the Parquet file: a part of it takes for ever");
  expect(where).toEqual({ file });
});

const schemes = { GZIP: gzipSync, BROTLI: brotliCompressSync, ZSTD: zstdCompressSync };

test.each(Object.keys(schemes) as (keyof typeof schemes)[])("pages compressed by %s are read", async (codec) => {
  const data = Array.from({ length: 100 }, (_, k) => `text ${k % 7}`);
  const compressors = { [codec]: (bytes: Uint8Array) => new Uint8Array(schemes[codec](bytes)) };
  const columnData = [{ name: "a", data, type: "STRING" as const }];
  const file = await put("rows.parquet", new Uint8Array(parquetWriteBuffer({ codec, compressors, columnData })));
  const rows = await Array.fromAsync(readParquet(file));
  expect(rows.map(({ value }) => value.a)).toEqual(data);
});

test("bytes of a fixed length are lists of numbers, as JSON has them", async () => {
  const columnData = [{ name: "a", data: [Uint8Array.of(1, 255)] }];
  const schema = [
    { name: "root", num_children: 1 },
    { name: "a", type: "FIXED_LEN_BYTE_ARRAY" as const, type_length: 2, repetition_type: "REQUIRED" as const },
  ];
  const file = await put("rows.parquet", new Uint8Array(parquetWriteBuffer({ columnData, schema })));
  expect(await Array.fromAsync(readParquet(file))).toEqual([{ row: 1, value: { a: [1, 255] } }]);
});

test("what is no Parquet file is refused with the reason", async () => {
  const file = await put("x.parquet", "no such thing");
  expect((await failure(() => Array.fromAsync(readParquet(file)))).what).toMatch(/^Cannot read the Parquet file: /);
});
