import { isBlockMatrix, parameterShapes, type TensorSource } from "@tempora/engine/model";
import { TemporaError } from "@tempora/errors";
import type { Checkpoint } from "../checkpoint.ts";
import { dtypeName } from "../config.ts";
import type { NamedTensor, TensorLayout } from "../safetensors-writer.ts";
import { saveCheckpoint } from "../save.ts";
import { type CopyOptions, readAs, readFloats } from "../save-copy.ts";
import {
  fromEngineNf4,
  maximaBlock,
  type Nf4Matrix,
  nf4Block,
  nf4Values,
  quantiseNf4,
  signedDynamicMap,
} from "./nf4.ts";

/**
 * Writes a checkpoint, whatever it was opened from, as bitsandbytes stores one in NF4 with double quantisation, for
 * transformers, vLLM and others: the matrices of the blocks in 4 bits, all else in the checkpoint's own type. What the checkpoint
 * itself holds so is written as it is. Whole or not at all, a tensor in memory at a time; each matrix is read twice, since the
 * header tells the length of what is stored of its offset.
 */
export async function saveNf4(
  checkpoint: Checkpoint,
  folder: string,
  options: Omit<CopyOptions, "dtype"> = {},
): Promise<void> {
  const { config, raw, companion, dtype } = checkpoint;
  const sources = await Array.fromAsync(checkpoint.tensors());
  const matrices = new Set(
    parameterShapes(config)
      .filter(isBlockMatrix)
      .map(({ name }) => name),
  );
  const progress = progressOf(sources.length + matrices.size, options);
  const states = new Map<string, Uint8Array>();
  for (const source of sources.filter(({ name }) => matrices.has(name))) {
    progress.begin();
    states.set(source.name, stateOf((await matrixOf(source)).offset, source, dtypeName(dtype)));
    progress.end();
  }
  async function* tensors(): AsyncGenerator<NamedTensor> {
    for (const source of sources) {
      progress.begin();
      const state = states.get(source.name);
      if (state === undefined) {
        yield { name: source.name, dtype, shape: source.shape, bytes: await readAs(source, dtype) };
      } else {
        yield* storedParts(source, await matrixOf(source), state);
      }
      progress.end();
    }
  }
  const quantized = {
    config: quantizationConfig(dtypeName(dtype)),
    layout: new Map([...states].map(([name, state]) => [name, nf4Layout(name, shapeOf(sources, name), state)])),
  };
  const { files = {} } = options;
  await saveCheckpoint(folder, { config, raw, dtype, tensors: tensors(), companion, files, quantized });
}

function progressOf(total: number, { signal, onProgress }: Omit<CopyOptions, "dtype">) {
  let done = 0;
  return { begin: () => signal?.throwIfAborted(), end: () => onProgress?.(++done, total) };
}

function shapeOf(sources: readonly TensorSource[], name: string): readonly number[] {
  return sources.find((source) => source.name === name)!.shape;
}

async function matrixOf(source: TensorSource): Promise<Nf4Matrix> {
  const { blocks, shape } = source;
  if (blocks?.format !== "NF4") {
    const values = await readFloats(source);
    if (values.every(Number.isFinite)) return quantiseNf4(values);
    throw new TemporaError("The tensor holds NaN or infinity, which NF4 has no number for", {
      where: { file: source.file, field: source.name },
      remedy: "Use an earlier checkpoint, or export it in its own type.",
    });
  }
  return fromEngineNf4(
    await blocks.read(),
    shape.reduce((product, extent) => product * extent, 1),
  );
}

/** As Python writes JSON. */
function stateOf(offset: number, { shape }: TensorSource, dtype: string): Uint8Array {
  const text = `{"quant_type": "nf4", "blocksize": ${nf4Block}, "dtype": "${dtype}", "shape": [${shape.join(", ")}], "nested_blocksize": ${maximaBlock}, "nested_dtype": "float32", "nested_offset": ${offset}}`;
  return new TextEncoder().encode(text);
}

function nf4Layout(name: string, shape: readonly number[], state: Uint8Array): TensorLayout[] {
  const size = shape.reduce((product, extent) => product * extent, 1);
  const blocks = Math.ceil(size / nf4Block);
  return [
    { name, dtype: "u8", shape: [Math.ceil(size / 2), 1] },
    { name: `${name}.absmax`, dtype: "u8", shape: [blocks] },
    { name: `${name}.quant_map`, dtype: "f32", shape: [nf4Values.length] },
    { name: `${name}.nested_absmax`, dtype: "f32", shape: [Math.ceil(blocks / maximaBlock)] },
    { name: `${name}.nested_quant_map`, dtype: "f32", shape: [signedDynamicMap.length] },
    { name: `${name}.quant_state.bitsandbytes__nf4`, dtype: "u8", shape: [state.length] },
  ];
}

function storedParts({ name, shape }: TensorSource, matrix: Nf4Matrix, state: Uint8Array): NamedTensor[] {
  const { codes, maxima, scales } = matrix;
  const parts = [codes, maxima, nf4Values, scales, signedDynamicMap, state];
  return nf4Layout(name, shape, state).map((layout, i) => {
    const { buffer, byteOffset, byteLength } = parts[i]!;
    return { ...layout, bytes: new Uint8Array(buffer, byteOffset, byteLength) };
  });
}

/** But for llm_int8_threshold, which transformers wants as 6.0 and JavaScript writes as 6, what transformers writes for BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True). */
function quantizationConfig(dtype: string): Record<string, unknown> {
  return {
    _load_in_4bit: true,
    _load_in_8bit: false,
    bnb_4bit_compute_dtype: dtype,
    bnb_4bit_quant_storage: "uint8",
    bnb_4bit_quant_type: "nf4",
    bnb_4bit_use_double_quant: true,
    llm_int8_enable_fp32_cpu_offload: false,
    llm_int8_has_fp16_weight: false,
    llm_int8_skip_modules: ["lm_head"],
    load_in_4bit: true,
    load_in_8bit: false,
    quant_method: "bitsandbytes",
  };
}
