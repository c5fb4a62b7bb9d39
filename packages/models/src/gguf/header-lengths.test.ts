import { mkdtemp, open, readFile, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { checkHeaderLengths } from "./header-lengths.ts";
import { createGguf, type MetadataValue } from "./writer.ts";

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "tempora-header-"));
});
afterAll(() => rm(folder, { recursive: true }));

/** A file of `size` bytes (a hole behind its header) with such metadata; returns its path and the header's length. */
async function fileOf(name: string, metadata: Record<string, MetadataValue>, size?: number) {
  const file = join(folder, name);
  const written = await createGguf(file, metadata, [{ name: "t", type: "F32", shape: [32] }]);
  await written.write("t", new Uint8Array(128));
  await written.close();
  const header = (await readFile(file)).length - 128;
  if (size !== undefined) await truncate(file, size);
  return { file, header };
}

/** Checks the file and returns how many bytes were asked for, one look after the other. */
async function looks(file: string): Promise<number[]> {
  const asked: number[] = [];
  const handle = await open(file, "r");
  try {
    await checkHeaderLengths({
      stat: handle.stat.bind(handle),
      read: (buffer: Buffer, ...place: [number, number, number]) => {
        asked.push(place[1]);
        return handle.read(buffer, ...place);
      },
    } as Parameters<typeof checkHeaderLengths>[0]);
  } finally {
    await handle.close();
  }
  return asked;
}

const words = (count: number): MetadataValue => ({
  type: "strings",
  value: Array.from({ length: count }, (_, i) => `word ${i}`),
});

describe("the lengths of a GGUF header", () => {
  it("are looked at in a megabyte of a large file whose header is short", async () => {
    const { file } = await fileOf("short.gguf", { a: words(10) }, 300e6);
    expect(await looks(file)).toEqual([1e6]);
  });

  it("are looked at in ten times as much until the header has its end there", async () => {
    const { file, header } = await fileOf("long.gguf", { a: words(100_000) }, 300e6);
    expect(header).toBeGreaterThan(1e6);
    expect(await looks(file)).toEqual([1e6, 10e6]);
  });

  it("are refused where they lead past the end of the file, wherever that is", async () => {
    const short = await fileOf("cut-short.gguf", { a: words(10) });
    const long = await fileOf("cut-long.gguf", { a: words(100_000) });
    for (const { file, header } of [short, long]) {
      await expect(looks(file)).resolves.toBeDefined();
      await truncate(file, header - 40);
      await expect(looks(file)).rejects.toThrow(RangeError);
    }
  });

  it("are left to the reader where a value has a type that nobody knows", async () => {
    const { file } = await fileOf("unknown.gguf", { a: { type: "u32", value: 7 } });
    const bytes = await readFile(file);
    bytes.writeUInt32LE(99, 24 + 8 + 1);
    await writeFile(file, bytes);
    await expect(looks(file)).resolves.toHaveLength(1);
  });
});
