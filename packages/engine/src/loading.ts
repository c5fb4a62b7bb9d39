import { TemporaError } from "@tempora/errors";
import type { NativeEngine } from "./addon.ts";
import { checkConfig, checkQuantize } from "./check.ts";
import type { ParameterMoments, Quantization } from "./engine-types.ts";
import { giveBack } from "./give-back.ts";
import {
  type BlockFormatName,
  type DType,
  isBlockMatrix,
  type ModelConfig,
  type ModelSource,
  type ParameterShape,
  parameterShapes,
  type TensorSource,
} from "./model.ts";
import { abortError, nativeFailure } from "./native.ts";

const bytesOf: Record<DType, number> = { f32: 4, bf16: 2 };

/** Tensors whose bytes are in memory at the same time: one is read while the one before is copied in. */
const readAhead = 2;

function elements(shape: readonly number[]): number {
  return shape.reduce((product, size) => product * size, 1);
}

function checkTensor(tensor: TensorSource, wanted: ParameterShape): void {
  const where = { file: tensor.file, field: tensor.name };
  if (!(tensor.dtype in bytesOf)) {
    throw new TemporaError(`The tensor has element type ${String(tensor.dtype)}`, {
      where,
      remedy: "Convert the checkpoint to f32 or bf16.",
    });
  }
  if (tensor.shape.length !== wanted.shape.length || tensor.shape.some((size, i) => size !== wanted.shape[i])) {
    throw new TemporaError(
      `The tensor has shape [${tensor.shape.join(", ")}], but the model needs [${wanted.shape.join(", ")}]`,
      {
        where,
        remedy: "Check that config.json and the weights belong together.",
      },
    );
  }
}

/** Every parameter's tensor, in the order of `parameters`: none missing, unknown, twice or of another shape. */
export async function collectTensors(
  model: ModelSource,
  parameters: readonly ParameterShape[],
): Promise<TensorSource[]> {
  const index = new Map(parameters.map((parameter, i) => [parameter.name, i]));
  const found: (TensorSource | undefined)[] = parameters.map(() => undefined);
  for await (const tensor of model.tensors()) {
    const i = index.get(tensor.name);
    const where = { file: tensor.file, field: tensor.name };
    if (i === undefined) {
      throw new TemporaError("The tensor has no place in this model", {
        where,
        remedy: "Check that config.json and the weights belong together.",
      });
    }
    if (found[i] !== undefined) {
      throw new TemporaError(`The tensor is there twice, also in ${found[i].file}`, {
        where,
        remedy: "Remove one of them.",
      });
    }
    checkTensor(tensor, parameters[i] as ParameterShape);
    found[i] = tensor;
  }
  const missing = parameters.filter((_, i) => found[i] === undefined).map((parameter) => parameter.name);
  if (missing.length > 0) {
    const more = missing.length > 3 ? ` and ${missing.length - 3} more` : "";
    throw new TemporaError(`The model lacks ${missing.slice(0, 3).join(", ")}${more}`, {
      where: { file: model.name },
      remedy: "Get the whole checkpoint; a file of its weights may be missing.",
    });
  }
  return found as TensorSource[];
}

/** Two configs that describe the same computation, whatever the family is called. */
function checkSameModel(mine: ModelConfig, other: ModelConfig, file: string): void {
  for (const key of Object.keys(mine) as (keyof ModelConfig)[]) {
    if (key === "family" || JSON.stringify(mine[key]) === JSON.stringify(other[key])) continue;
    throw new TemporaError(
      `${key} is ${JSON.stringify(other[key])}, but the engine holds ${JSON.stringify(mine[key])}`,
      {
        where: { file, field: key },
        remedy: "Load this model into an engine of its own.",
      },
    );
  }
}

/** The tensors of a model that another of the same shape makes room for. */
export async function sameModelTensors(model: ModelSource, config: ModelConfig): Promise<TensorSource[]> {
  checkSameModel(config, model.config, model.name);
  return collectTensors(model, parameterShapes(config));
}

/** By parameter: the format of the blocks that stay as the model's files hold them; null for the others. */
export type KeptFormats = readonly (BlockFormatName | null)[];

/** In which formats an engine holds matrices, beside its element type. */
export interface HeldFormats {
  /** Of all matrices of the blocks. */
  quantized: "nf4" | null;
  kept: KeptFormats;
}

/** The blocks that a parameter is copied in as; null for numbers. NF4 takes either, and keeps a file's own blocks. */
function heldFormat({ name, shape, blocks }: TensorSource, index: number, held: HeldFormats): BlockFormatName | null {
  if (held.quantized === null) return held.kept[index] ?? null;
  const matrix = isBlockMatrix({ name, shape, decays: shape.length > 1 });
  return matrix && blocks?.format === "NF4" ? "NF4" : null;
}

function keptFormats(
  tensors: readonly TensorSource[],
  parameters: readonly ParameterShape[],
  file: string,
): KeptFormats {
  const kept = parameters.map((parameter, index) => {
    const format = tensors[index]?.blocks?.format;
    return isBlockMatrix(parameter) && format !== undefined && format !== "NF4" ? format : null;
  });
  if (kept.some((format) => format !== null)) return kept;
  throw new TemporaError("The model holds no quantized matrices that could stay as they are", {
    where: { file },
    remedy: 'Name a quantized GGUF file, or quantize the matrices as they are read, by "nf4".',
  });
}

/** A model's tensors, all there and of their shapes, and what of them is kept as its files hold it. */
export async function modelTensors(model: ModelSource, quantize: Quantization | undefined) {
  checkConfig(model.config);
  checkQuantize(quantize);
  const parameters = parameterShapes(model.config);
  const tensors = await collectTensors(model, parameters);
  const kept: KeptFormats = quantize === "gguf" ? keptFormats(tensors, parameters, model.name) : [];
  return { tensors, kept };
}

interface Copied {
  index: number;
  tensor: TensorSource;
  /** The bytes are blocks of this format. */
  format: BlockFormatName | null;
  adapter: number | undefined;
}

/** What a tensor is copied in as. @throws TemporaError where its file holds it in another format than the engine. */
function sourceOf(tensor: TensorSource, format: BlockFormatName | null) {
  if (format === null) return { byteLength: elements(tensor.shape) * bytesOf[tensor.dtype], read: () => tensor.read() };
  const { blocks } = tensor;
  if (blocks?.format === format) return blocks;
  throw new TemporaError(`The tensor is held as ${blocks?.format ?? tensor.dtype}; the engine keeps ${format}`, {
    where: { file: tensor.file, field: tensor.name },
    remedy: "Load this model into an engine of its own.",
  });
}

async function copyIn(
  engine: NativeEngine,
  bytes: Uint8Array,
  { index, tensor, format, adapter }: Copied,
): Promise<void> {
  const where = { file: tensor.file, field: tensor.name };
  const wanted = sourceOf(tensor, format).byteLength;
  if (bytes.length !== wanted) {
    throw new TemporaError(`The tensor has ${bytes.length} bytes instead of ${wanted}`, {
      where,
      remedy: "The file is truncated or damaged: get it again.",
    });
  }
  try {
    await engine.setParameter(index, format === null ? tensor.dtype : "blocks", bytes, adapter);
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "not-finite") {
      throw new TemporaError("The tensor holds NaN or infinity", {
        where,
        remedy: "Use an earlier checkpoint; these weights come from a training that blew up, or the file is damaged.",
        cause: error,
      });
    }
    throw nativeFailure(error);
  }
  if (tensor.fresh) giveBack(bytes);
}

export interface CopyOptions {
  signal?: AbortSignal | undefined;
  /** Bytes of the checkpoint that are in. */
  onProgress?: ((done: number, total: number) => void) | undefined;
  /** Number of the adapter whose tensors these are; default: the model's. */
  adapter?: number | undefined;
  /** Default: all in numbers. */
  held?: HeldFormats | undefined;
}

/** Copies a model's or an adapter's tensors into an engine. */
export async function loadParameters(
  engine: NativeEngine,
  tensors: readonly TensorSource[],
  { signal, onProgress, adapter, held = { quantized: null, kept: [] } }: CopyOptions = {},
): Promise<void> {
  const formats = tensors.map((tensor, index) => heldFormat(tensor, index, held));
  const sources = tensors.map((tensor, index) => sourceOf(tensor, formats[index] as BlockFormatName | null));
  const sizes = sources.map(({ byteLength }) => byteLength);
  const total = sizes.reduce((sum, size) => sum + size, 0);
  let done = 0;
  const pending: Promise<void>[] = [];
  try {
    for (const [index, tensor] of tensors.entries()) {
      if (signal?.aborted) throw abortError(signal);
      const bytes = await (sources[index] as (typeof sources)[number]).read();
      const copied = copyIn(engine, bytes, {
        index,
        tensor,
        format: formats[index] as BlockFormatName | null,
        adapter,
      }).then(() => {
        done += sizes[index] as number;
        onProgress?.(done, total);
      });
      copied.catch(() => {}); // awaited below; a rejection before that is not unhandled
      pending.push(copied);
      if (pending.length >= readAhead) await pending.shift();
    }
    for (const copied of pending) await copied;
  } finally {
    await Promise.allSettled(pending);
  }
}

const momentsRemedy = "Use the state that was saved with this model.";

/** Copies AdamW's moments in as they come: every parameter's once. */
export async function loadMoments(
  engine: NativeEngine,
  parameters: readonly ParameterShape[],
  moments: Iterable<ParameterMoments> | AsyncIterable<ParameterMoments>,
): Promise<void> {
  const missing = new Map(parameters.map((parameter, index) => [parameter.name, { index, shape: parameter.shape }]));
  const none = new Float32Array(0);
  for await (const { name, first, second, firstScales = none, secondScales = none } of moments) {
    const parameter = missing.get(name);
    if (parameter === undefined) {
      throw new TemporaError(`The optimizer state has ${name}, which is there twice or no parameter`, {
        remedy: momentsRemedy,
      });
    }
    const size = elements(parameter.shape);
    if (first.length !== size || second.length !== size) {
      throw new TemporaError(`The optimizer state has the wrong size for ${name}`, { remedy: momentsRemedy });
    }
    try {
      await engine.setOptimizerState(parameter.index, { first, second, firstScales, secondScales });
    } catch (error) {
      throw nativeFailure(error);
    }
    missing.delete(name);
  }
  const [name] = missing.keys();
  if (name !== undefined) {
    throw new TemporaError(`The optimizer state lacks ${name}`, { remedy: momentsRemedy });
  }
}
