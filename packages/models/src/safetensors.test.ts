import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { failure, oracle, scratch } from "@tempora/testing";
import { beforeEach, describe, expect, test } from "vitest";
import { readSafetensors } from "./safetensors.ts";
import { type NamedTensor, SafetensorsWriter, writeSafetensors } from "./safetensors-writer.ts";

let file = "";
beforeEach(async () => {
  file = join(await scratch(), "model.safetensors");
});

const remedy = "The file is damaged or was not copied whole: fetch or write it again.";

/** A file of any header and so many bytes of data. */
async function put(header: unknown, dataBytes: number, tail = ""): Promise<void> {
  const text = Buffer.from(typeof header === "string" ? header : JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  await writeFile(file, Buffer.concat([length, text, Buffer.alloc(dataBytes), Buffer.from(tail)]));
}

const refusal = () => failure(() => readSafetensors(file));

describe("reading", () => {
  test("a file of the reference implementation: names, shapes, types, metadata, bytes", async () => {
    const weights = await readSafetensors(oracle("llama3", "policy", "model.safetensors"));
    expect(weights.metadata).toEqual({ format: "pt" });
    const norm = weights.tensors.get("model.norm.weight")!;
    expect(norm).toMatchObject({ dtype: "F32", shape: [64], byteLength: 256 });
    const bytes = await norm.read();
    expect(new Float32Array(bytes.buffer, bytes.byteOffset, 64).every((x) => Math.abs(x - 1) < 0.5)).toBe(true);
    expect(await norm.read(8, 16)).toEqual(bytes.slice(8, 16));
  });

  test("empty tensors, scalars and every type of the format are understood", async () => {
    await put(
      {
        __metadata__: { by: "hand" },
        scalar: { dtype: "F64", shape: [], data_offsets: [0, 8] },
        empty: { dtype: "F16", shape: [0, 3], data_offsets: [8, 8] },
        flags: { dtype: "BOOL", shape: [3], data_offsets: [8, 11] },
      },
      11,
    );
    const { tensors } = await readSafetensors(file);
    expect([...tensors.keys()]).toEqual(["scalar", "empty", "flags"]);
    expect(await tensors.get("empty")!.read()).toHaveLength(0);
  });

  test("a file that shrank after it was opened is noticed", async () => {
    await put({ a: { dtype: "F32", shape: [2], data_offsets: [0, 8] } }, 8);
    const { tensors } = await readSafetensors(file);
    await writeFile(file, (await readFile(file)).subarray(0, -4));
    const error = await failure(() => tensors.get("a")!.read());
    expect(error.what).toMatch(/^The file ends at byte \d+, before byte \d+$/);
    expect(error.where).toEqual({ file, field: "a" });
  });
});

describe("a damaged file is refused with its name, the tensor and the remedy", () => {
  const a = { dtype: "F32", shape: [2, 3], data_offsets: [0, 24] };
  const b = { dtype: "BF16", shape: [4], data_offsets: [24, 32] };

  test("missing", async () => {
    expect((await refusal()).message).toBe(`Cannot read the weights: it does not exist (${file}). Check the path.`);
  });

  test("truncated within a tensor", async () => {
    await put({ a, b }, 30);
    expect((await refusal()).message).toBe(
      `The file is truncated: this tensor ends at byte 32 of the data, the file has 30 (${file}, field b). ${remedy}`,
    );
  });

  test("truncated within the header, or before it", async () => {
    await put({ a }, 24);
    const whole = await readFile(file);
    await writeFile(file, whole.subarray(0, 20));
    expect((await refusal()).what).toMatch(/^The file is truncated: its header needs \d+ bytes, the file has 20$/);
    await writeFile(file, whole.subarray(0, 5));
    expect((await refusal()).what).toBe("A safetensors file has at least 8 bytes, this one has 5");
  });

  test("not a safetensors file at all", async () => {
    await writeFile(file, "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n");
    expect((await refusal()).what).toMatch(
      /^Not a safetensors file: its first 8 bytes announce a header of \d+ bytes$/,
    );
  });

  const cases: [string, unknown, number, string, string | undefined][] = [
    ["a header that is not JSON", '{"a": ', 0, "The safetensors header is not valid JSON", undefined],
    ["a header that is a list", "[]", 0, "The safetensors header does not hold a JSON object", undefined],
    ["bytes beyond the last tensor", { a }, 30, "The file has 6 bytes after its last tensor", undefined],
    ["a gap", { b }, 32, "The byte range [24, 32) leaves a gap before it", "b"],
    ["an overlap", { a, b: { ...b, data_offsets: [20, 28] } }, 28, "The byte range [20, 28) overlaps", "b"],
    ["a shape that does not fit its bytes", { a: { ...a, shape: [2, 4] } }, 24, "[2, 4] has 32 bytes", "a"],
    ["an unknown type", { a: { ...a, dtype: "F12" } }, 24, 'Unknown element type "F12"', "a"],
    ["a negative extent", { a: { ...a, shape: [-2, 3] } }, 24, "Not a shape: [-2,3]", "a"],
    ["offsets that are no pair", { a: { ...a, data_offsets: [0] } }, 24, "Not a pair of byte positions: [0]", "a"],
    ["an entry that is no object", { a: 3 }, 0, "The header has no description of this tensor", "a"],
    ["metadata that are not strings", { __metadata__: { n: 1 } }, 0, "must be strings by name", "__metadata__"],
    [
      "a name that stands twice",
      `{"a":${JSON.stringify(a)},"a":${JSON.stringify(a)}}`,
      24,
      "lists a tensor twice",
      "a",
    ],
  ];
  test.each(cases)("%s", async (_, header, dataBytes, message, field) => {
    await put(header, dataBytes);
    const error = await refusal();
    expect(error.what).toContain(message);
    expect(error.where).toEqual(field === undefined ? { file } : { file, field });
    expect(error.remedy).not.toBe("");
  });
});

describe("writing", () => {
  const tensors: NamedTensor[] = [
    { name: "half", dtype: "bf16", shape: [3], bytes: Uint8Array.of(1, 2, 3, 4, 5, 6) },
    { name: "full", dtype: "f32", shape: [2, 1], bytes: Uint8Array.of(9, 8, 7, 6, 5, 4, 3, 2) },
  ];

  test("what is written reads back, with an aligned header and the metadata that transformers asks for", async () => {
    await writeSafetensors(file, tensors);
    const back = await readSafetensors(file);
    expect(back.metadata).toEqual({ format: "pt" });
    expect(back.tensors.get("full")).toMatchObject({ dtype: "F32", shape: [2, 1] });
    expect(back.tensors.get("full")!.offset % 8).toBe(0);
    for (const { name, bytes } of tensors) expect(await back.tensors.get(name)!.read()).toEqual(bytes);
  });

  test("tensors may come in any order; each must come once, as announced", async () => {
    const writer = await SafetensorsWriter.create(file, tensors);
    await writer.write(tensors[1]!);
    expect((await failure(() => writer.write(tensors[1]!))).what).toMatch(/was not announced, or was written before/);
    const short = { ...tensors[0]!, bytes: Uint8Array.of(1, 2) };
    expect((await failure(() => writer.write(short))).what).toBe("This tensor must have 6 bytes, not 2");
    expect((await failure(() => writer.write({ ...short, dtype: "f32", shape: [] }))).what).toContain("not f32 []");
    const unfinished = await failure(() => writer.close());
    expect(unfinished.where).toEqual({ file, field: "half" });
    expect(unfinished.what).toBe("This tensor was never given");
  });

  test("a file that fails half way is not left behind", async () => {
    const wrong = [tensors[0]!, { ...tensors[1]!, bytes: new Uint8Array(3) }];
    await failure(() => writeSafetensors(file, wrong));
    expect((await refusal()).what).toContain("it does not exist");
  });

  test("a place that cannot be written is named", async () => {
    await writeFile(file, "");
    const inside = join(file, "model.safetensors");
    expect((await failure(() => writeSafetensors(inside, tensors))).message).toContain(`is in the way (${inside})`);
  });
});
