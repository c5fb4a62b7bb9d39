/** The 16 numbers of NF4 (Dettmers et al. 2023): quantiles of a normal distribution, ascending. */
export const nf4Values = Float32Array.of(
  -1,
  -0.6961928009986877,
  -0.5250730514526367,
  -0.39491748809814453,
  -0.28444138169288635,
  -0.18477343022823334,
  -0.09105003625154495,
  0,
  0.07958029955625534,
  0.16093020141124725,
  0.24611230194568634,
  0.33791524171829224,
  0.44070982933044434,
  0.5626170039176941,
  0.7229568362236023,
  1,
);

/** Numbers that have a maximum in common, and maxima that have a scale in common. */
export const nf4Block = 64;
export const maximaBlock = 256;

/** What the 8-bit codes of maxima stand for, ascending: bitsandbytes' signed dynamic map. */
export const signedDynamicMap: Float32Array = Float32Array.from(
  Array.from({ length: 7 }, (_, decade) => {
    const fractions = 2 ** decade;
    return Array.from({ length: fractions }, (_, i) => 10 ** (decade - 6) * (0.1 + (0.9 * (i + 0.5)) / fractions));
  })
    .flat()
    .flatMap((value) => [value, -value])
    .concat(0, 1)
    .sort((a, b) => a - b),
);

/** A matrix of n numbers in NF4 with double quantisation. */
export interface Nf4Matrix {
  /** u8 [n / 2 rounded up]: two numbers a byte, the first in the high half. */
  codes: Uint8Array;
  /** u8 [blocks]: the blocks' absolute maxima are map[code] · scale + offset. */
  maxima: Uint8Array;
  /** [blocks / 256 rounded up] */
  scales: Float32Array;
  offset: number;
}

/** The nearest number's code; of two as near the lower one. */
function nearest(x: number, values: Float32Array, middles: Float32Array): number {
  let low = 0;
  let high = values.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (x > middles[middle]!) low = middle + 1;
    else high = middle;
  }
  return low;
}

function middlesOf(values: Float32Array): Float32Array {
  return Float32Array.from(values.subarray(1), (value, i) => (value + values[i]!) / 2);
}

const nf4Middles = middlesOf(nf4Values);
const mapMiddles = middlesOf(signedDynamicMap);

function largest(values: Float32Array): number {
  let found = 0;
  for (const value of values) found = Math.max(found, Math.abs(value));
  return found;
}

/** As bitsandbytes quantises, but for the offset, whose sum it forms in f32: ours may differ from it in the last bits. */
export function quantiseNf4(values: Float32Array): Nf4Matrix {
  const blocks = Math.ceil(values.length / nf4Block);
  const codes = new Uint8Array(Math.ceil(values.length / 2));
  const maxima = new Float32Array(blocks);
  for (let block = 0; block < blocks; block++) {
    const first = block * nf4Block;
    const end = Math.min(values.length, first + nf4Block);
    const maximum = largest(values.subarray(first, end));
    maxima[block] = maximum;
    for (let i = first; i < end; i++) {
      const code = nearest(maximum === 0 ? 0 : Math.fround(values[i]! / maximum), nf4Values, nf4Middles);
      codes[i >> 1]! |= i % 2 === 0 ? code << 4 : code;
    }
  }
  return { codes, ...quantiseMaxima(maxima) };
}

function quantiseMaxima(maxima: Float32Array): Omit<Nf4Matrix, "codes"> {
  const offset = Math.fround(maxima.reduce((sum, maximum) => sum + maximum, 0) / maxima.length);
  const centred = maxima.map((maximum) => maximum - offset);
  const scales = new Float32Array(Math.ceil(maxima.length / maximaBlock));
  for (let i = 0; i < scales.length; i++) {
    scales[i] = largest(centred.subarray(i * maximaBlock, (i + 1) * maximaBlock));
  }
  const codes = Uint8Array.from(centred, (value, block) => {
    const scale = scales[Math.floor(block / maximaBlock)]!;
    return nearest(scale === 0 ? 0 : Math.fround(value / scale), signedDynamicMap, mapMiddles);
  });
  return { maxima: codes, scales, offset };
}

/** The blocks' absolute maxima. */
export function maximaOf({ maxima, scales, offset }: Omit<Nf4Matrix, "codes">, per = maximaBlock): Float32Array {
  return Float32Array.from(
    maxima,
    (code, block) => Math.fround(signedDynamicMap[code]! * scales[Math.floor(block / per)]!) + offset,
  );
}

/** `size` numbers, of blocks of `per`. */
export function dequantiseNf4(codes: Uint8Array, maxima: Float32Array, size: number, per = nf4Block): Float32Array {
  const values = new Float32Array(size);
  for (let i = 0; i < size; i++) {
    const pair = codes[i >> 1]!;
    values[i] = nf4Values[i % 2 === 0 ? pair >> 4 : pair & 15]! * maxima[Math.floor(i / per)]!;
  }
  return values;
}

/** Bytes of n numbers as the engine holds them. */
export function engineNf4Bytes(n: number): number {
  const blocks = Math.ceil(n / nf4Block);
  return Math.ceil((Math.ceil(n / 2) + blocks) / 4) * 4 + 4 * Math.ceil(blocks / maximaBlock) + 4;
}

/** What `toEngineNf4` made of a matrix of n numbers. */
export function fromEngineNf4(bytes: Uint8Array, n: number): Nf4Matrix {
  const codes = Math.ceil(n / 2);
  const blocks = Math.ceil(n / nf4Block);
  const begin = Math.ceil((codes + blocks) / 4) * 4;
  const floats = new Float32Array(bytes.slice(begin).buffer);
  return {
    codes: bytes.subarray(0, codes),
    maxima: bytes.subarray(codes, codes + blocks),
    scales: floats.subarray(0, -1),
    offset: floats.at(-1)!,
  };
}

/** As the engine holds it: native/src/backend/nf4.h says which part lies where. */
export function toEngineNf4({ codes, maxima, scales, offset }: Nf4Matrix): Uint8Array {
  const begin = Math.ceil((codes.length + maxima.length) / 4) * 4;
  const bytes = new Uint8Array(begin + 4 * scales.length + 4);
  bytes.set(codes);
  bytes.set(maxima, codes.length);
  const view = new DataView(bytes.buffer);
  for (const [i, value] of [...scales, offset].entries()) view.setFloat32(begin + 4 * i, value, true);
  return bytes;
}
