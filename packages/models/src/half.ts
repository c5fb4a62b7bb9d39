// float16, which Node 22 has no typed array for.

const float = new Float32Array(1);
const bits = new Uint32Array(float.buffer);

/** The value of every float16, by its 16 bits. */
export const halves: Float32Array = Float32Array.from({ length: 1 << 16 }, (_, word) => {
  const sign = word & 0x8000 ? -1 : 1;
  const exponent = (word >>> 10) & 0x1f;
  const fraction = word & 0x3ff;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 0x1f) return fraction === 0 ? sign * Infinity : Number.NaN;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
});

/** The 16 bits of the nearest float16, of two as near the even one. */
export function halfBits(value: number): number {
  float[0] = value;
  const word = bits[0] as number;
  const sign = (word >>> 16) & 0x8000;
  const magnitude = word & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7e00;
  // From 2¹⁶ on.
  if (magnitude >= 0x47800000) return sign | 0x7c00;
  if (magnitude >= 0x38800000) return sign | ((magnitude + 0xfff + ((magnitude >>> 13) & 1) - 0x38000000) >>> 13);
  // Below 2⁻¹⁴ the steps are 2⁻²⁴, as they are of float32 from a half on: the sum rounds as it must.
  float[0] = Math.abs(value) + 0.5;
  return sign | ((bits[0] as number) - 0x3f000000);
}

/** Little-endian float16 as float32. */
export function widenHalves(bytes: Uint8Array, out: Float32Array): void {
  for (let i = 0; 2 * i < bytes.length; i++) {
    out[i] = halves[(bytes[2 * i] as number) | ((bytes[2 * i + 1] as number) << 8)] as number;
  }
}

export function narrowToHalves(values: Float32Array, out: Uint8Array): void {
  for (let i = 0; i < values.length; i++) {
    const word = halfBits(values[i] as number);
    out[2 * i] = word & 0xff;
    out[2 * i + 1] = word >>> 8;
  }
}
