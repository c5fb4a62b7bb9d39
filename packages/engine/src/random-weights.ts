import type { DType, ModelConfig, ModelSource, ParameterShape, TensorSource } from "./model.ts";
import { parameterShapes } from "./model.ts";

/** Elements drawn before the event loop gets a turn. */
const chunk = 1 << 20;

/** A bijection of 32 bits that mixes well (Wellons' lowbias32). */
function mix(value: number): number {
  let x = value | 0;
  x = Math.imul(x ^ (x >>> 16), 0x21f0aaad);
  x = Math.imul(x ^ (x >>> 15), 0x735a2d97);
  return x ^ (x >>> 15);
}

/** Normal numbers, each a function of the seed, the parameter and its index alone (Box and Muller's transformation). */
async function normals(count: number, std: number, seed: number, parameter: number): Promise<Float32Array> {
  const values = new Float32Array(count);
  const key = keyOf(seed, parameter);
  const radiusKey = mix(key ^ 0x3c6ef372);
  const angleKey = mix(key ^ 0x78dde6e4);
  for (let begin = 0; begin < count; begin += chunk) {
    const end = Math.min(count, begin + chunk);
    for (let i = begin; i < end; i += 2) {
      const counter = mix(i);
      const uniform = ((mix(radiusKey ^ counter) >>> 0) + 0.5) / 2 ** 32;
      const angle = ((mix(angleKey ^ counter) >>> 0) / 2 ** 32) * 2 * Math.PI;
      const radius = std * Math.sqrt(-2 * Math.log(uniform));
      values[i] = radius * Math.cos(angle);
      if (i + 1 < end) values[i + 1] = radius * Math.sin(angle);
    }
    await new Promise<void>((resolve) => setImmediate(resolve));
  }
  return values;
}

function keyOf(seed: number, tensor: number): number {
  return mix(mix(seed % 2 ** 32) ^ mix(Math.floor(seed / 2 ** 32) + 0x5bd1e995) ^ mix(tensor + 0x1b873593));
}

/** Uniform numbers in [-bound, bound), each a function of the seed, the tensor and its index alone. */
export async function uniforms(count: number, bound: number, seed: number, tensor: number): Promise<Float32Array> {
  const values = new Float32Array(count);
  const key = keyOf(seed, tensor);
  for (let begin = 0; begin < count; begin += chunk) {
    const end = Math.min(count, begin + chunk);
    for (let i = begin; i < end; i++) values[i] = bound * (2 * ((mix(key ^ mix(i)) >>> 0) / 2 ** 32) - 1);
    await new Promise<void>((resolve) => setImmediate(resolve));
  }
  return values;
}

async function draw(parameter: ParameterShape, index: number, std: number, seed: number): Promise<Uint8Array> {
  const count = parameter.shape.reduce((product, size) => product * size, 1);
  let values: Float32Array;
  if (parameter.name.endsWith("norm.weight")) values = new Float32Array(count).fill(1);
  else if (parameter.name.endsWith(".bias")) values = new Float32Array(count);
  else values = await normals(count, std, seed, index);
  return new Uint8Array(values.buffer);
}

/** A model as it is before any training: matrices normal(0, std), norms 1, biases 0. */
export function randomModel(config: ModelConfig, dtype: DType, seed: number, std: number): ModelSource {
  const name = `random weights of seed ${seed}`;
  return {
    config,
    name,
    dtype,
    *tensors(): Iterable<TensorSource> {
      for (const [index, parameter] of parameterShapes(config).entries()) {
        yield {
          name: parameter.name,
          dtype: "f32",
          shape: parameter.shape,
          file: name,
          read: () => draw(parameter, index, std, seed),
          fresh: true,
        };
      }
    },
  };
}
