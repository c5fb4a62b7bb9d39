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

test("what is no Parquet file is refused with the reason", async () => {
  const file = await put("x.parquet", "no such thing");
  expect((await failure(() => Array.fromAsync(readParquet(file)))).what).toMatch(/^Cannot read the Parquet file: /);
});
