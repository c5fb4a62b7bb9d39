import type { RopeScaling } from "@tempora/engine/model";

type Llama3 = Extract<RopeScaling, { type: "llama3" }>;

/**
 * What each frequency of a llama3 scaling is divided by, [headDim / 2]: the tensor rope_freqs.weight of a GGUF file
 * (convert_hf_to_gguf.py: LlamaModel.generate_extra_tensors).
 */
export function ropeDivisors(theta: number, headDim: number, scaling: Llama3): Float32Array {
  const { factor, lowFreqFactor: low, highFreqFactor: high, originalMaxPositions: original } = scaling;
  const divisors = new Float32Array(headDim / 2);
  for (let i = 0; i < divisors.length; i++) {
    const wavelength = 2 * Math.PI * theta ** ((2 * i) / headDim);
    if (wavelength < original / high) divisors[i] = 1;
    else if (wavelength > original / low) divisors[i] = factor;
    else {
      const smooth = (original / wavelength - low) / (high - low);
      divisors[i] = 1 / ((1 - smooth) / factor + smooth);
    }
  }
  return divisors;
}

/** Divisors in a file are float32 of float32 arithmetic. */
const tolerance = 1e-5;

/**
 * The scaling that gives these divisors, since a GGUF file holds them without its parameters; null when none does.
 * lowFreqFactor is 1 here: multiplying it, highFreqFactor and originalMaxPositions by one number changes nothing.
 */
export function scalingOfDivisors(divisors: Float32Array, theta: number, headDim: number): RopeScaling | null {
  const factor = shortest(divisors.at(-1)!);
  if (!(factor >= 1) || divisors.length !== headDim / 2) return null;
  if (divisors.every((divisor) => close(divisor, factor))) return { type: "linear", factor };
  for (const candidate of candidates(divisors, theta, headDim, factor)) {
    const made = ropeDivisors(theta, headDim, candidate);
    if (made.every((divisor, i) => close(divisor, divisors[i]!))) return candidate;
  }
  return null;
}

function close(a: number, b: number): boolean {
  return Math.abs(a - b) <= tolerance * Math.abs(b);
}

/** The usual 1 and 4 over powers of two first, then what fits the divisors between 1 and the factor. */
function* candidates(divisors: Float32Array, theta: number, headDim: number, factor: number): Generator<Llama3> {
  const usual = { type: "llama3", factor, lowFreqFactor: 1 } as const;
  for (let original = 16; original <= 1 << 24; original *= 2) {
    yield { ...usual, highFreqFactor: 4, originalMaxPositions: original };
  }
  // Between the two wavelengths 1 / divisor is linear in the frequency: smooth = (original · f / 2π - low) / (high - low).
  const points = Array.from(divisors, (divisor, i) => ({
    x: 1 / (2 * Math.PI * theta ** ((2 * i) / headDim)),
    y: (1 / divisor - 1 / factor) / (1 - 1 / factor),
  })).filter(({ y }) => y > tolerance && y < 1 - tolerance);
  const [first, last] = [points[0], points.at(-1)];
  if (first === undefined || last === undefined || first === last) return;
  const slope = (first.y - last.y) / (first.x - last.x);
  const zero = last.y - slope * last.x;
  const high = 1 - 1 / zero;
  const original = slope * (high - 1);
  yield { ...usual, highFreqFactor: Math.round(high * 1e3) / 1e3, originalMaxPositions: Math.round(original) };
}

/** The number with the fewest digits that is this float32: 1e-5 instead of 0.000009999999747378752. */
export function shortest(value: number): number {
  for (let digits = 1; digits < 9; digits++) {
    const rounded = Number(value.toPrecision(digits));
    if (Math.fround(rounded) === Math.fround(value)) return rounded;
  }
  return value;
}
