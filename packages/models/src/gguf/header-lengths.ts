import type { FileHandle } from "node:fs/promises";

/** Bytes of GGUF's metadata values of fixed size, by their type. */
const sizes: Record<number, number> = { 0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8 };
const stringType = 8;
const arrayType = 9;

/** Most headers are shorter; one that is not is looked at again in ten times as much. */
const firstLook = 1e6;
/** Headers are looked at so far; the library reads none that is longer. */
const maxHeader = 50e6;

/**
 * Throws a RangeError when counts or lengths of the header of a GGUF file (version 2 or 3, little-endian) lead past its end. The library pads what is
 * missing with zeros, and would spend seconds on reading millions of them.
 */
export async function checkHeaderLengths(file: Pick<FileHandle, "stat" | "read">): Promise<void> {
  const { size } = await file.stat();
  const end = Math.min(size, maxHeader);
  for (let look = firstLook; ; look *= 10) {
    const bytes = Buffer.alloc(Math.min(look, end));
    const { bytesRead } = await file.read(bytes, 0, bytes.length, 0);
    const walk = new Walk(bytes.subarray(0, bytesRead));
    if (walk.header() || walk.unknownType) return;
    if (bytes.length < end) continue;
    if (size > maxHeader) return;
    throw new RangeError("it leads past the end of the file");
  }
}

/** Goes through a header without taking anything from it. Every step returns false where it ends, mostly since the bytes do. */
class Walk {
  /** It ended at a value whose length nobody knows: to be named by who reads it. */
  unknownType = false;
  #at = 8;

  constructor(readonly bytes: Buffer) {}

  header(): boolean {
    const tensors = this.#length();
    const values = this.#length();
    if (tensors === null || values === null) return false;
    return this.#times(values, () => this.#string() && this.#value()) && this.#times(tensors, () => this.#tensor());
  }

  #times(count: number, step: () => boolean): boolean {
    for (let done = 0; done < count; done++) if (!step()) return false;
    return true;
  }

  #skip(count: number): boolean {
    this.#at += count;
    return this.#at <= this.bytes.length;
  }

  #word(): number | null {
    return this.#skip(4) ? this.bytes.readUInt32LE(this.#at - 4) : null;
  }

  #length(): number | null {
    return this.#skip(8) ? Number(this.bytes.readBigUInt64LE(this.#at - 8)) : null;
  }

  #string(): boolean {
    const length = this.#length();
    return length !== null && this.#skip(length);
  }

  #value(type = this.#word()): boolean {
    if (type === null) return false;
    if (type === stringType) return this.#string();
    if (type === arrayType) return this.#array();
    const size = sizes[type];
    this.unknownType = size === undefined;
    return size !== undefined && this.#skip(size);
  }

  #array(): boolean {
    const type = this.#word();
    const length = this.#length();
    if (type === null || length === null) return false;
    const size = sizes[type];
    return size === undefined ? this.#times(length, () => this.#value(type)) : this.#skip(length * size);
  }

  /** Name, shape, type and place. */
  #tensor(): boolean {
    if (!this.#string()) return false;
    const dimensions = this.#word();
    return dimensions !== null && this.#skip(8 * dimensions + 4 + 8);
  }
}
