import { type FileHandle, open } from "node:fs/promises";
import { fileError, isObject, TemporaError } from "@tempora/errors";
import { parseJsonObject } from "./json-file.ts";

/** Bytes of one element of every dtype that a safetensors file may name. */
const elementBytes: Record<string, number> = {
  BOOL: 1,
  U8: 1,
  I8: 1,
  F8_E4M3: 1,
  F8_E5M2: 1,
  F8_E8M0: 1,
  I16: 2,
  U16: 2,
  F16: 2,
  BF16: 2,
  I32: 4,
  U32: 4,
  F32: 4,
  F64: 8,
  I64: 8,
  U64: 8,
  C64: 8,
};

/** The format's own limit on its header. */
const maxHeaderBytes = 100_000_000;
const fetchAgain = "The file is damaged or was not copied whole: fetch or write it again.";

/** One tensor of a safetensors file. Its bytes are read when asked for. */
export interface SafetensorsTensor {
  name: string;
  /** As the file names it: "F32", "BF16", "F16", ... */
  dtype: string;
  shape: readonly number[];
  file: string;
  /** Position of its first byte in the file. */
  offset: number;
  byteLength: number;
  /** `byteLength` little-endian bytes, or the part [from, to) of them. */
  read(from?: number, to?: number): Promise<Uint8Array>;
}

export interface SafetensorsFile {
  file: string;
  metadata: Record<string, string>;
  /** In the order of the header. */
  tensors: ReadonlyMap<string, SafetensorsTensor>;
}

interface Entry {
  name: string;
  dtype: string;
  shape: number[];
  begin: number;
  end: number;
}

/**
 * Opens a safetensors file and checks its whole header: length, JSON, dtypes, shapes against byte ranges, and that the
 * ranges fill the file without gap or overlap. No weights are read.
 * @throws TemporaError naming the file and, where it is known, the tensor.
 */
export async function readSafetensors(file: string): Promise<SafetensorsFile> {
  const handle = await openForReading(file);
  try {
    const { size } = await handle.stat();
    const { text, dataStart } = await readHeader(handle, file, size);
    const { entries, metadata } = parseHeader(text, file);
    checkRanges(entries, size - dataStart, file);
    const tensors = new Map(entries.map((entry) => [entry.name, tensorOf(entry, file, dataStart)]));
    return { file, metadata, tensors };
  } finally {
    await handle.close();
  }
}

async function openForReading(file: string): Promise<FileHandle> {
  try {
    return await open(file, "r");
  } catch (error) {
    throw fileError(error, "Cannot read the weights", file);
  }
}

function damaged(file: string, what: string, field?: string): TemporaError {
  return new TemporaError(what, { where: field === undefined ? { file } : { file, field }, remedy: fetchAgain });
}

async function readHeader(
  handle: FileHandle,
  file: string,
  size: number,
): Promise<{ text: string; dataStart: number }> {
  if (size < 8) throw damaged(file, `A safetensors file has at least 8 bytes, this one has ${size}`);
  const prefix = await readRange(handle, file, 0, 8);
  const length = Number(new DataView(prefix.buffer, prefix.byteOffset, 8).getBigUint64(0, true));
  if (length > maxHeaderBytes) {
    throw damaged(file, `Not a safetensors file: its first 8 bytes announce a header of ${length} bytes`);
  }
  if (8 + length > size) {
    throw damaged(file, `The file is truncated: its header needs ${8 + length} bytes, the file has ${size}`);
  }
  const bytes = await readRange(handle, file, 8, 8 + length);
  try {
    return { text: new TextDecoder("utf-8", { fatal: true }).decode(bytes), dataStart: 8 + length };
  } catch (error) {
    throw new TemporaError("The safetensors header is not UTF-8", {
      where: { file },
      remedy: fetchAgain,
      cause: error,
    });
  }
}

async function readRange(
  handle: FileHandle,
  file: string,
  from: number,
  to: number,
  field?: string,
): Promise<Uint8Array> {
  const bytes = new Uint8Array(to - from);
  let done = 0;
  while (done < bytes.length) {
    // Linux moves at most 2 GiB in one call.
    const wanted = Math.min(bytes.length - done, 1 << 30);
    const { bytesRead } = await handle.read(bytes, done, wanted, from + done);
    if (bytesRead === 0) throw damaged(file, `The file ends at byte ${from + done}, before byte ${to}`, field);
    done += bytesRead;
  }
  return bytes;
}

function parseHeader(text: string, file: string): { entries: Entry[]; metadata: Record<string, string> } {
  const header = parseJsonObject(text, file, "The safetensors header");
  const repeated = repeatedKey(text);
  if (repeated !== null) throw damaged(file, `The safetensors header lists a tensor twice`, repeated);
  const entries: Entry[] = [];
  let metadata: Record<string, string> = {};
  for (const [name, value] of Object.entries(header)) {
    if (name === "__metadata__") metadata = parseMetadata(value, file);
    else entries.push(parseEntry(name, value, file));
  }
  return { entries, metadata };
}

function parseMetadata(value: unknown, file: string): Record<string, string> {
  if (!isObject(value) || !Object.values(value).every((item) => typeof item === "string")) {
    throw damaged(file, "The metadata of a safetensors file must be strings by name", "__metadata__");
  }
  return value as Record<string, string>;
}

function parseEntry(name: string, value: unknown, file: string): Entry {
  if (!isObject(value)) throw damaged(file, "The header has no description of this tensor", name);
  const { dtype, shape, data_offsets: offsets } = value;
  const size = typeof dtype === "string" ? elementBytes[dtype] : undefined;
  if (typeof dtype !== "string" || size === undefined) {
    throw damaged(file, `Unknown element type ${JSON.stringify(dtype)}`, name);
  }
  if (!isSizes(shape)) throw damaged(file, `Not a shape: ${JSON.stringify(shape)}`, name);
  if (!isSizes(offsets) || offsets.length !== 2) {
    throw damaged(file, `Not a pair of byte positions: ${JSON.stringify(offsets)}`, name);
  }
  const [begin, end] = offsets as [number, number];
  const bytes = shape.reduce((product, extent) => product * extent, size);
  if (end - begin !== bytes) {
    const shown = `[${shape.join(", ")}]`;
    throw damaged(file, `${dtype} of shape ${shown} has ${bytes} bytes, the header gives it ${end - begin}`, name);
  }
  return { name, dtype, shape, begin, end };
}

function isSizes(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((item) => Number.isSafeInteger(item) && item >= 0);
}

/** The ranges must follow one another from 0 to the end of the file. */
function checkRanges(entries: readonly Entry[], dataBytes: number, file: string): void {
  const sorted = [...entries].sort((a, b) => a.begin - b.begin || a.end - b.end);
  let position = 0;
  for (const entry of sorted) {
    if (entry.end > dataBytes) {
      const what = `The file is truncated: this tensor ends at byte ${entry.end} of the data, the file has ${dataBytes}`;
      throw damaged(file, what, entry.name);
    }
    if (entry.begin !== position) {
      const how = entry.begin < position ? "overlaps the tensor before it" : "leaves a gap before it";
      throw damaged(file, `The byte range [${entry.begin}, ${entry.end}) ${how}`, entry.name);
    }
    position = entry.end;
  }
  if (position !== dataBytes) {
    throw damaged(file, `The file has ${dataBytes - position} bytes after its last tensor`);
  }
}

function tensorOf(entry: Entry, file: string, dataStart: number): SafetensorsTensor {
  const byteLength = entry.end - entry.begin;
  const offset = dataStart + entry.begin;
  return {
    name: entry.name,
    dtype: entry.dtype,
    shape: entry.shape,
    file,
    offset,
    byteLength,
    async read(from = 0, to = byteLength) {
      const handle = await openForReading(file);
      try {
        return await readRange(handle, file, offset + from, offset + to, entry.name);
      } finally {
        await handle.close();
      }
    },
  };
}

/** A key that stands twice at the top level of a JSON object; JSON.parse would keep the last one without a word. */
function repeatedKey(text: string): string | null {
  const seen = new Set<string>();
  let depth = 0;
  for (const match of text.matchAll(/"(?:[^"\\]|\\.)*"(\s*:)?|[{}[\]]/g)) {
    const token = match[0];
    if (token === "{" || token === "[") depth += 1;
    else if (token === "}" || token === "]") depth -= 1;
    else if (depth === 1 && match[1] !== undefined) {
      const key = JSON.parse(token.slice(0, token.length - match[1].length)) as string;
      if (seen.has(key)) return key;
      seen.add(key);
    }
  }
  return null;
}
