import { TemporaError } from "@tempora/errors";
import { halfBits, narrowToHalves } from "../half.ts";

/** Element types that are written. */
export type WrittenType = "F32" | "F16" | "BF16" | "Q8_0";

interface Encoding {
  /** Its number in the file. */
  type: number;
  /** Elements and bytes of a block. */
  elements: number;
  bytes: number;
  encode(values: Float32Array, out: Uint8Array): void;
}

export const encodings: Readonly<Record<WrittenType, Encoding>> = {
  F32: { type: 0, elements: 1, bytes: 4, encode: (values, out) => out.set(bytesOf(values)) },
  F16: { type: 1, elements: 1, bytes: 2, encode: narrowToHalves },
  BF16: { type: 30, elements: 1, bytes: 2, encode: encodeBF16 },
  Q8_0: { type: 8, elements: 32, bytes: 34, encode: encodeQ8_0 },
};

/**
 * Values in an element type. `where` names the tensor in an error.
 * @throws TemporaError for a value that the type cannot hold.
 */
export function encodeAs(type: WrittenType, values: Float32Array, where: { file: string; field: string }): Uint8Array {
  const { elements, bytes, encode } = encodings[type];
  const out = new Uint8Array((values.length / elements) * bytes);
  encode(values, out);
  if (type === "F16" && overflows(out)) {
    throw new TemporaError("This tensor has values beyond 65504, which F16 cannot hold", {
      where,
      remedy: "Export as bf16 or q8_0.",
    });
  }
  return out;
}

function bytesOf(values: Float32Array): Uint8Array {
  return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
}

/** Finite values only come in, so an exponent of ones is one that grew too large. */
function overflows(halves: Uint8Array): boolean {
  const words = new Uint16Array(halves.buffer, halves.byteOffset, halves.length / 2);
  for (let i = 0; i < words.length; i++) if ((words[i]! & 0x7c00) === 0x7c00) return true;
  return false;
}

/** Rounded to nearest, ties to even. */
export function encodeBF16(values: Float32Array, out: Uint8Array): void {
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const words = new Uint16Array(out.buffer, out.byteOffset, values.length);
  for (let i = 0; i < bits.length; i++) words[i] = (bits[i]! + 0x7fff + ((bits[i]! >>> 16) & 1)) >>> 16;
}

/** A float16 scale of the greatest magnitude / 127, and 32 signed bytes (ggml-quants.c: quantize_row_q8_0_ref). */
function encodeQ8_0(values: Float32Array, out: Uint8Array): void {
  const blocks = values.length / 32;
  const signed = new Int8Array(out.buffer, out.byteOffset, out.length);
  for (let block = 0; block < blocks; block++) {
    let greatest = 0;
    for (let j = 0; j < 32; j++) greatest = Math.max(greatest, Math.abs(values[32 * block + j]!));
    const scale = Math.fround(greatest / 127);
    const inverse = scale === 0 ? 0 : Math.fround(1 / scale);
    const at = 34 * block;
    const word = halfBits(scale);
    out[at] = word & 0xff;
    out[at + 1] = word >>> 8;
    for (let j = 0; j < 32; j++) {
      const value = Math.fround(values[32 * block + j]! * inverse);
      // Halves away from zero, as roundf.
      signed[at + 2 + j] = value < 0 ? -Math.round(-value) : Math.round(value);
    }
  }
}
