import { halves, widenHalves } from "../half.ts";

/** A GGUF element type that is read: how its bytes are cut into blocks, and the float32 values of a block. */
export interface BlockFormat {
  name: string;
  /** Elements of a block; a row holds whole blocks. */
  elements: number;
  /** Bytes of a block. */
  bytes: number;
  /** Writes the values of the whole blocks in `raw` to the start of `out`. */
  decode(raw: Uint8Array, out: Float32Array): void;
}

function halfAt(raw: Uint8Array, at: number): number {
  return halves[raw[at]! | (raw[at + 1]! << 8)]!;
}

function decodeF32(raw: Uint8Array, out: Float32Array): void {
  new Uint8Array(out.buffer, out.byteOffset, raw.length).set(raw);
}

function decodeBF16(raw: Uint8Array, out: Float32Array): void {
  const words = new Uint16Array(raw.buffer, raw.byteOffset, raw.length / 2);
  const bits = new Uint32Array(out.buffer, out.byteOffset, words.length);
  for (let i = 0; i < words.length; i++) bits[i] = words[i]! << 16;
}

/** Blocks of 32 that end in 16 bytes of nibbles: low ones first, then high ones. `head` bytes of scales and fifth bits. */
function nibbleBlocks(
  raw: Uint8Array,
  out: Float32Array,
  { head, minimum, fifth }: { head: number; minimum: boolean; fifth: boolean },
): void {
  const bytes = head + 16;
  const offset = minimum ? 0 : fifth ? 16 : 8;
  for (let at = 0, o = 0; at < raw.length; at += bytes, o += 32) {
    const d = halfAt(raw, at);
    const m = minimum ? halfAt(raw, at + 2) : 0;
    const q = at + head;
    const high = fifth ? raw[q - 4]! | (raw[q - 3]! << 8) | (raw[q - 2]! << 16) | (raw[q - 1]! << 24) : 0;
    for (let j = 0; j < 16; j++) {
      const pair = raw[q + j]!;
      const low5 = (high >>> j) & 1;
      const high5 = (high >>> (j + 16)) & 1;
      out[o + j] = d * ((pair & 15) + (low5 << 4) - offset) + m;
      out[o + j + 16] = d * ((pair >> 4) + (high5 << 4) - offset) + m;
    }
  }
}

function decodeQ8_0(raw: Uint8Array, out: Float32Array): void {
  const signed = new Int8Array(raw.buffer, raw.byteOffset, raw.length);
  for (let at = 0, o = 0; at < raw.length; at += 34, o += 32) {
    const d = halfAt(raw, at);
    for (let j = 0; j < 32; j++) out[o + j] = d * signed[at + 2 + j]!;
  }
}

/** Eight 6-bit scales and eight 6-bit minima in 12 bytes, as Q4_K and Q5_K hold them. */
function sixBit(raw: Uint8Array, at: number, scales: Uint8Array, minima: Uint8Array): void {
  for (let j = 0; j < 4; j++) {
    scales[j] = raw[at + j]! & 63;
    minima[j] = raw[at + j + 4]! & 63;
    scales[j + 4] = (raw[at + j + 8]! & 15) | ((raw[at + j]! >> 6) << 4);
    minima[j + 4] = (raw[at + j + 8]! >> 4) | ((raw[at + j + 4]! >> 6) << 4);
  }
}

/** Q4_K, and Q5_K with 32 bytes of fifth bits between scales and nibbles: bit i of byte l belongs to value l of group i. */
function nibbleSuperBlocks(raw: Uint8Array, out: Float32Array, fifth: boolean): void {
  const bytes = fifth ? 176 : 144;
  const scales = new Uint8Array(8);
  const minima = new Uint8Array(8);
  for (let at = 0, o = 0; at < raw.length; at += bytes, o += 256) {
    const d = halfAt(raw, at);
    const dmin = halfAt(raw, at + 2);
    sixBit(raw, at + 4, scales, minima);
    const high = at + 16;
    const nibbles = fifth ? at + 48 : at + 16;
    for (let pair = 0; pair < 4; pair++) {
      const [d0, m0] = [d * scales[2 * pair]!, dmin * minima[2 * pair]!];
      const [d1, m1] = [d * scales[2 * pair + 1]!, dmin * minima[2 * pair + 1]!];
      const to = o + 64 * pair;
      for (let l = 0; l < 32; l++) {
        const byte = raw[nibbles + 32 * pair + l]!;
        const bits = fifth ? raw[high + l]! >> (2 * pair) : 0;
        out[to + l] = d0 * ((byte & 15) + ((bits & 1) << 4)) - m0;
        out[to + l + 32] = d1 * ((byte >> 4) + ((bits & 2) << 3)) - m1;
      }
    }
  }
}

/** 128 bytes of low nibbles, 64 of high pairs of bits, 16 signed scales, d; values are q - 32. */
function decodeQ6_K(raw: Uint8Array, out: Float32Array): void {
  const signed = new Int8Array(raw.buffer, raw.byteOffset, raw.length);
  for (let at = 0, o = 0; at < raw.length; at += 210, o += 256) {
    const d = halfAt(raw, at + 208);
    for (let part = 0; part < 2; part++) {
      const low = at + 64 * part;
      const high = at + 128 + 32 * part;
      const scale = at + 192 + 8 * part;
      const to = o + 128 * part;
      for (let l = 0; l < 32; l++) {
        const s = scale + (l >> 4);
        const bits = raw[high + l]!;
        const [a, b] = [raw[low + l]!, raw[low + l + 32]!];
        out[to + l] = d * signed[s]! * (((a & 15) | ((bits & 3) << 4)) - 32);
        out[to + l + 32] = d * signed[s + 2]! * (((b & 15) | ((bits & 12) << 2)) - 32);
        out[to + l + 64] = d * signed[s + 4]! * (((a >> 4) | (bits & 48)) - 32);
        out[to + l + 96] = d * signed[s + 6]! * (((b >> 4) | ((bits & 192) >> 2)) - 32);
      }
    }
  }
}

/** The types that are read, by their number in the file (ggml.h: ggml_type; ggml-quants.c: dequantize_row_*). */
export const blockFormats: Readonly<Record<number, BlockFormat>> = {
  0: { name: "F32", elements: 1, bytes: 4, decode: decodeF32 },
  1: { name: "F16", elements: 1, bytes: 2, decode: widenHalves },
  2: nibbles("Q4_0", { head: 2, minimum: false, fifth: false }),
  3: nibbles("Q4_1", { head: 4, minimum: true, fifth: false }),
  6: nibbles("Q5_0", { head: 6, minimum: false, fifth: true }),
  7: nibbles("Q5_1", { head: 8, minimum: true, fifth: true }),
  8: { name: "Q8_0", elements: 32, bytes: 34, decode: decodeQ8_0 },
  12: { name: "Q4_K", elements: 256, bytes: 144, decode: (raw, out) => nibbleSuperBlocks(raw, out, false) },
  13: { name: "Q5_K", elements: 256, bytes: 176, decode: (raw, out) => nibbleSuperBlocks(raw, out, true) },
  14: { name: "Q6_K", elements: 256, bytes: 210, decode: decodeQ6_K },
  30: { name: "BF16", elements: 1, bytes: 2, decode: decodeBF16 },
};

function nibbles(name: string, layout: { head: number; minimum: boolean; fifth: boolean }): BlockFormat {
  return { name, elements: 32, bytes: layout.head + 16, decode: (raw, out) => nibbleBlocks(raw, out, layout) };
}

export const readableTypes = Object.values(blockFormats)
  .map(({ name }) => name)
  .join(", ");

/** Names of types that are not read, for messages. */
const otherTypes: Readonly<Record<number, string>> = {
  9: "Q8_1",
  10: "Q2_K",
  11: "Q3_K",
  15: "Q8_K",
  16: "IQ2_XXS",
  17: "IQ2_XS",
  18: "IQ3_XXS",
  19: "IQ1_S",
  20: "IQ4_NL",
  21: "IQ3_S",
  22: "IQ2_S",
  23: "IQ4_XS",
  24: "I8",
  25: "I16",
  26: "I32",
  27: "I64",
  28: "F64",
  29: "IQ1_M",
  34: "TQ1_0",
  35: "TQ2_0",
  39: "MXFP4",
  40: "NVFP4",
};

export function typeName(type: number): string {
  return blockFormats[type]?.name ?? otherTypes[type] ?? `number ${type}`;
}
