import {
  type AdapterConfig,
  adapterModules,
  adapterTensors,
  type DType,
  Engine,
  type Forest,
  ForestBuilder,
  type ModelConfig,
  type ModelSource,
  type MomentsFormat,
  type ParameterShape,
  parameterShapes,
  type Quantization,
} from "@tempora/engine";
import { countParameters, forestWork, forwardFlops, trainingPasses } from "../results/ledger.ts";

/** A model as it will be trained. */
export interface TrainedShape {
  config: ModelConfig;
  dtype: DType;
  quantize?: Quantization | undefined;
  moments?: MomentsFormat | undefined;
  adapter?: AdapterConfig | null | undefined;
  checkpointing: boolean;
}

/** The trees of a micro-batch: prompt and completions of a typical row, and how many such rows at most. */
export interface RowsShape {
  prompt: number;
  completions: readonly number[];
  rows: number;
}

/** What a training's steps take on this machine as it is now. */
export interface TrainingSpeed {
  /** FLOPs a second of forward and backward passes, by the ledger's count. */
  flopsPerSecond: number;
  /** Of an optimizer step, for each number that is trained. */
  updateSeconds: number;
}

export interface Machine {
  device: "auto" | "cpu" | "cuda";
  threads: number;
}

/** Weights that are measured with at most, a layer at least: FLOPs a second are the widths', not the depth's. */
const mostWeights = 12e6;
const mostVocabulary = 4096;
/** FLOPs of a measured step at most, a tree at least: on a CPU a fifth of a second, on a GPU enough to fill it. */
const mostFlops = { cpu: 1e11, cuda: 2e13 };
const longestTree = { cpu: 512, cuda: 4096 };
/** Repeated until this has passed: small models take microseconds. */
const measuredSeconds = 0.1;

/** The same widths with fewer layers and a smaller vocabulary where the model is large. */
export function narrowed(config: ModelConfig, most: { weights: number; vocabulary: number }): ModelConfig {
  const vocabSize = Math.min(config.vocabSize, most.vocabulary);
  const small = (layers: number): ModelConfig => ({
    ...config,
    vocabSize,
    layers,
    windows: config.windows.slice(0, layers),
  });
  let layers = 1;
  while (layers < config.layers && countParameters(parameterShapes(small(layers + 1))) <= most.weights) layers++;
  return small(layers);
}

const pattern = Float32Array.from({ length: 65_521 }, (_, k) => 0.07 * (((k * 40_503) % 65_521) / 65_521 - 0.5));

/** The same few random numbers again and again: drawing each by itself takes longer than multiplying by it. */
function patternBytes({ name, shape }: ParameterShape, dtype: DType): Uint8Array {
  const values = new Float32Array(shape.reduce((product, size) => product * size, 1));
  if (name.endsWith("norm.weight")) values.fill(1);
  else if (!name.endsWith(".bias")) {
    for (let at = 0; at < values.length; at += pattern.length) {
      values.set(pattern.subarray(0, Math.min(pattern.length, values.length - at)), at);
    }
  }
  if (dtype === "f32") return new Uint8Array(values.buffer);
  // The upper half of each number, little-endian.
  const halves = new Uint16Array(values.buffer);
  for (let k = 0; k < values.length; k++) halves[k] = halves[2 * k + 1] as number;
  return new Uint8Array(values.buffer, 0, 2 * values.length);
}

/** The name of a model that no checkpoint gave. */
export const measuredWith = "weights to measure with";

export function patternModel(config: ModelConfig, dtype: DType): ModelSource {
  const name = measuredWith;
  return {
    config,
    name,
    dtype,
    *tensors() {
      for (const parameter of parameterShapes(config)) {
        const read = () => Promise.resolve(patternBytes(parameter, dtype));
        yield { name: parameter.name, dtype, shape: parameter.shape, file: name, read, fresh: true };
      }
    },
  };
}

/** As many of the rows as take no longer than the measurement may. */
function measuredForest(
  config: ModelConfig,
  { prompt, completions, rows }: RowsShape,
  { flops, longest }: { flops: number; longest: number },
): Forest {
  const tokens = completions.reduce((sum, length) => sum + length, prompt);
  const share = Math.min(1, longest / tokens, config.maxPositions / (prompt + Math.max(...completions)));
  const ids = (length: number, seed: number) =>
    Array.from({ length: Math.max(1, Math.floor(share * length)) }, (_, k) => (seed + k * 7919) % config.vocabSize);
  const builder = new ForestBuilder();
  let left = flops;
  for (let row = 0; row < rows && left > 0; row++) {
    const root = builder.add(ids(prompt, row), -1, false);
    for (const [k, length] of completions.entries()) builder.add(ids(length, row + k + 1), root, true);
    if (row === 0) flops = forwardFlops(config, forestWork(config, builder.build()));
    left -= flops;
  }
  return builder.build();
}

/** Seconds of work that was done once before: the first call of a kind allocates. */
export async function timed(work: () => Promise<unknown>): Promise<number> {
  await work();
  const begun = performance.now();
  const seconds = () => (performance.now() - begun) / 1000;
  for (let times = 1; ; times++) {
    await work();
    if (seconds() > measuredSeconds) return seconds() / times;
  }
}

/** Of an adapter the modules that any model has: those of single layers may be layers that are not measured. */
function measuredAdapter(adapter: AdapterConfig): AdapterConfig {
  const { targets } = adapter;
  const named = Array.isArray(targets) && targets.every((target: string) => !target.includes("."));
  return { ...adapter, targets: named ? targets : "all-linear", ranks: {}, alphas: {} };
}

/** Measures forward and backward passes and updates with the model's widths: a fraction of a second, and no weights are read. */
export async function measureTraining(model: TrainedShape, machine: Machine, rows: RowsShape): Promise<TrainingSpeed> {
  const { config, dtype, moments, checkpointing } = model;
  const adapter = model.adapter == null ? null : measuredAdapter(model.adapter);
  // A GGUF file's own blocks are dequantised for each product as these are.
  const quantize = model.quantize === undefined ? undefined : ("nf4" as const);
  const shape = narrowed(config, { weights: mostWeights, vocabulary: mostVocabulary });
  using engine = await Engine.load(patternModel(shape, dtype), { ...machine, dtype, quantize, moments });
  if (adapter !== null) {
    await engine.adapters.add("measured", adapter, { seed: 0 });
    await engine.adapters.activate("measured");
  }
  const passes = trainingPasses({ checkpointing, frozen: adapter !== null });
  const limits = { flops: mostFlops[engine.device] / passes, longest: longestTree[engine.device] };
  const forest = measuredForest(shape, rows, limits);
  const weights = new Float32Array(forest.tokens.length).fill(-1e-6);
  const passSeconds = await timed(() => engine.accumulate(forest, weights, { checkpointing }));
  const update = await timed(() => engine.optimizerStep({ learningRate: 1e-12 }));
  return {
    flopsPerSecond: (passes * forwardFlops(shape, forestWork(shape, forest))) / passSeconds,
    updateSeconds: update / trainedNumbers(shape, adapter),
  };
}

function trainedNumbers(config: ModelConfig, adapter: AdapterConfig | null): number {
  return countParameters(adapter === null ? parameterShapes(config) : adapterTensors(adapterModules(adapter, config)));
}

/** What an optimizer step takes whose forward passes alone cost so many FLOPs. */
export function stepSeconds(
  { config, adapter = null, checkpointing }: TrainedShape,
  { flopsPerSecond, updateSeconds }: TrainingSpeed,
  forwardFlops: number,
): number {
  const passes = trainingPasses({ checkpointing, frozen: adapter !== null });
  return (passes * forwardFlops) / flopsPerSecond + trainedNumbers(config, adapter) * updateSeconds;
}
