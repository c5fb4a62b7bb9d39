import type { ParameterShape, TensorSource } from "@tempora/engine/model";
import { isObject, TemporaError } from "@tempora/errors";
import type { SafetensorsTensor } from "../safetensors.ts";
import {
  dequantiseNf4,
  engineNf4Bytes,
  maximaBlock,
  maximaOf,
  type Nf4Matrix,
  nf4Block,
  nf4Values,
  signedDynamicMap,
  toEngineNf4,
} from "./nf4.ts";

type Found = ReadonlyMap<string, SafetensorsTensor>;

const parts = ["absmax", "quant_map", "nested_absmax", "nested_quant_map"] as const;
const statePart = "quant_state.bitsandbytes__nf4";
const fetchAgain = "The file is damaged, or another tool wrote it in a way of its own: fetch or quantize it again.";

/** Names of the tensors that bitsandbytes stores beside a matrix in 4 bits. */
export function isNf4Part(name: string, expected: ReadonlySet<string>): boolean {
  return [...parts, statePart].some(
    (part) => name.endsWith(`.${part}`) && expected.has(name.slice(0, -part.length - 1)),
  );
}

/** What `quant_state` says of a matrix. */
interface State {
  blocksize: number;
  /** Of double quantisation. */
  nested: { blocksize: number; offset: number } | null;
}

/**
 * A matrix that a checkpoint holds in bitsandbytes' NF4, as f32 or, with double quantisation in its usual blocks (64 and
 * 256), in blocks too; null where it is not so held.
 * @throws TemporaError for a part that is missing, misshapen or of other numbers.
 */
export async function nf4Tensor(expected: ParameterShape, found: Found): Promise<TensorSource | null> {
  const { name, shape } = expected;
  const weight = found.get(name);
  if (weight === undefined) return null;
  if (!found.has(`${name}.${statePart}`)) {
    if (found.has(`${name}.quant_state.bitsandbytes__fp4`))
      throw wrong(
        weight,
        "This tensor is in bitsandbytes' FP4",
        "NF4 is read: quantize it so, or name the model that it was quantized from.",
      );
    return null;
  }
  const size = shape.reduce((product, extent) => product * extent, 1);
  const state = parseState(await part(found, name, statePart, "U8").read(), expected, weight);
  // Its storage may be called any type (bnb_4bit_quant_storage): the bytes are the same.
  if (weight.byteLength !== Math.ceil(size / 2)) {
    throw wrong(
      weight,
      `This tensor has ${weight.byteLength} bytes; [${shape.join(", ")}] in 4 bits has ${Math.ceil(size / 2)}`,
    );
  }
  await requireMap(part(found, name, "quant_map", "F32", 16), nf4Values);
  const blocks = Math.ceil(size / state.blocksize);
  const absmax = part(found, name, "absmax", state.nested === null ? "F32" : "U8", blocks);
  const common = { name, dtype: "f32" as const, shape, file: weight.file };
  const { nested, blocksize } = state;
  if (nested === null) {
    const read = async () => dequantiseNf4(await weight.read(), floats(await absmax.read()), size, blocksize);
    return { ...common, read: async () => bytesOf(await read()) };
  }
  await requireMap(part(found, name, "nested_quant_map", "F32", 256), signedDynamicMap);
  const scales = part(found, name, "nested_absmax", "F32", Math.ceil(blocks / nested.blocksize));
  const matrix = async (): Promise<Nf4Matrix> => ({
    codes: await weight.read(),
    maxima: await absmax.read(),
    scales: floats(await scales.read()),
    offset: nested.offset,
  });
  const read = async () => {
    const stored = await matrix();
    return bytesOf(dequantiseNf4(stored.codes, maximaOf(stored, nested.blocksize), size, blocksize));
  };
  if (blocksize !== nf4Block || nested.blocksize !== maximaBlock) return { ...common, read };
  const inEngine = async () => toEngineNf4(await matrix());
  return { ...common, read, blocks: { format: "NF4", byteLength: engineNf4Bytes(size), read: inEngine } };
}

function parseState(bytes: Uint8Array, { shape }: ParameterShape, weight: SafetensorsTensor): State {
  const bad = (what: string) =>
    wrong(weight, `quant_state of this tensor ${what}`, fetchAgain, `${weight.name}.${statePart}`);
  let state: unknown;
  try {
    state = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch {
    throw bad("is no JSON");
  }
  if (!isObject(state)) throw bad("is no JSON object");
  const { quant_type: type, blocksize, shape: stated, nested_blocksize: nested, nested_offset: offset } = state;
  if (type !== "nf4") throw bad(`says ${JSON.stringify(type)}, not "nf4"`);
  if (JSON.stringify(stated) !== JSON.stringify(shape)) {
    throw bad(`says the shape ${JSON.stringify(stated)}; config.json asks for ${JSON.stringify(shape)}`);
  }
  if (!isBlocksize(blocksize)) throw bad(`has the block size ${JSON.stringify(blocksize)}`);
  if (nested === undefined) return { blocksize, nested: null };
  if (!isBlocksize(nested)) throw bad(`has the nested block size ${JSON.stringify(nested)}`);
  if (typeof offset !== "number") throw bad(`has the nested offset ${JSON.stringify(offset)}`);
  return { blocksize, nested: { blocksize: nested, offset } };
}

function isBlocksize(value: unknown): value is number {
  return Number.isInteger(value) && [32, 64, 128, 256, 512, 1024, 2048, 4096].includes(value as number);
}

function part(found: Found, name: string, which: string, dtype: string, count?: number): SafetensorsTensor {
  const tensor = found.get(`${name}.${which}`);
  if (tensor === undefined) {
    throw wrong(
      found.get(name)!,
      `${which} of this tensor, which is in 4 bits, is missing`,
      fetchAgain,
      `${name}.${which}`,
    );
  }
  const elements = tensor.shape.reduce((product, extent) => product * extent, 1);
  if (tensor.dtype !== dtype || (count !== undefined && elements !== count)) {
    const wanted = `${dtype}${count === undefined ? "" : ` of ${count} elements`}`;
    throw wrong(tensor, `This tensor is ${tensor.dtype} of ${elements} elements; ${wanted} was expected`);
  }
  return tensor;
}

/** Maps are stored with every matrix, and are always these; their last bits depend on who computed them. */
async function requireMap(tensor: SafetensorsTensor, map: Float32Array): Promise<void> {
  const values = floats(await tensor.read());
  if (values.some((value, i) => !(Math.abs(value - map[i]!) <= 1e-6 * Math.abs(map[i]!)))) {
    throw wrong(tensor, "This map of codes is none of NF4's");
  }
}

function wrong({ file, name }: SafetensorsTensor, what: string, remedy = fetchAgain, field = name): TemporaError {
  return new TemporaError(what, { where: { file, field }, remedy });
}

function floats(bytes: Uint8Array): Float32Array {
  return new Float32Array(bytes.slice().buffer);
}

function bytesOf(values: Float32Array): Uint8Array {
  return new Uint8Array(values.buffer);
}
