import { totalmem } from "node:os";
import {
  type AdapterConfig,
  adapterModules,
  adapterTensors,
  type DType,
  deviceInfo,
  isBlockMatrix,
  type ModelConfig,
  type MomentsFormat,
  momentScales,
  type ParameterShape,
  parameterShapes,
  type Quantization,
} from "@tempora/engine";
import { TemporaError } from "@tempora/errors";
import { gibibytes } from "./gibibytes.ts";

/** What decides how much memory an engine takes. */
export interface MemoryPlan {
  config: ModelConfig;
  dtype: DType;
  /** In which the checkpoint is read; default: dtype. */
  readAs?: DType | undefined;
  quantize?: Quantization | undefined;
  /** For "gguf": bytes of the parameters that the file holds in quantised blocks, by name. */
  blockBytes?: ReadonlyMap<string, number> | undefined;
  moments?: MomentsFormat | undefined;
  /** The adapter that is trained instead of the model. */
  adapter?: AdapterConfig | null | undefined;
}

/** Bytes by use, as `engine.memory()` names them. */
export interface MemoryEstimate {
  weights: number;
  gradients: number;
  optimizer: number;
  /** Activations and what the operations take beside them. */
  workspace: number;
  cache: number;
  /** Bun, the addon and the libraries, and what loading leaves to be used again. */
  program: number;
  total: number;
}

/** Resident memory of a command with its tokenizer and an engine of nearly no size, measured on Linux. */
const commandBytes = 172 * 2 ** 20;
/** Of a trained model that is saved, JavaScript holds tensors until it collects them: so many bytes at most. */
const savedBytes = 512 * 2 ** 20;
/** Freed memory that the engine's allocator keeps at most, and beside the most that was ever in use (allocator.cpp). */
const keptByAllocator = 256 * 2 ** 20;
const keptBesidePeak = 32 * 2 ** 20;
/** What blocks, the arenas' chunks and the libraries' scratch add to the sizes that are asked for: measured. */
const workspaceShare = 1.06;
const workspaceRest = 8 * 2 ** 20;

/** NF4 with double quantisation (QLoRA, arXiv:2305.14314): 4 bits, a byte for each 64 numbers, a float for each 256 of those. */
const nf4Bytes = 1 / 2 + (1 + 4 / 256) / 64;
/** Logits of a step that the engine keeps at once, unless one tree has more rows, and the most that it then keeps. */
const keptLogits = 64 * 2 ** 20;
const mostKeptLogits = 512 * 2 ** 20;

/** Rows of a panel with AVX-512, 16 with AVX2 (kernels/packed.cpp). */
const panelRows = 32;

const sizeOf = (dtype: DType) => (dtype === "f32" ? 4 : 2);
const numbersOf = ({ shape }: { shape: readonly number[] }) => shape.reduce((product, size) => product * size, 1);
const sum = (values: readonly number[]) => values.reduce((total, value) => total + value, 0);

function withTotal(parts: Omit<MemoryEstimate, "total">): MemoryEstimate {
  return { ...parts, total: sum(Object.values(parts)) };
}

/** A block of the allocator: the next multiple of an eighth of the power of two below (allocator.cpp). */
function blockBytes(bytes: number): number {
  let step = 64;
  while (step * 16 < bytes) step *= 2;
  if (bytes >= 2 ** 21) step = Math.max(step, 2 ** 16);
  return Math.ceil(Math.max(bytes, 64) / step) * step;
}

/**
 * While a tensor is read, its bytes are in memory twice; an engine that takes `reused` bytes afterwards takes them from
 * there. `saved`: bytes of what is written in the end.
 */
function programBytes({ config, dtype, readAs }: MemoryPlan, reused: number, saved: number): number {
  const largest = Math.max(...parameterShapes(config).map(numbersOf)) * sizeOf(readAs ?? dtype);
  const read = Math.min(2 * largest, keptByAllocator);
  const kept = Math.max(read - reused, Math.min(read, keptBesidePeak));
  return commandBytes + kept + Math.min(saved, savedBytes);
}

function adapterNumbers({ adapter, config }: MemoryPlan): number[] | null {
  return adapter == null ? null : adapterTensors(adapterModules(adapter, config)).map(numbersOf);
}

/** Bytes of a parameter that is held in quantised blocks; undefined for a plain one. */
function heldBlocks({ quantize, blockBytes }: MemoryPlan, parameter: ParameterShape): number | undefined {
  if (!isBlockMatrix(parameter) || quantize === undefined) return undefined;
  return quantize === "nf4" ? numbersOf(parameter) * nf4Bytes : blockBytes?.get(parameter.name);
}

function weightBytes(plan: MemoryPlan): number {
  const { config, dtype } = plan;
  const base = parameterShapes(config).map((parameter) => {
    return blockBytes(heldBlocks(plan, parameter) ?? numbersOf(parameter) * sizeOf(dtype));
  });
  return sum(base) + sum((adapterNumbers(plan) ?? []).map((numbers) => blockBytes(4 * numbers)));
}

function momentBytes(numbers: number, format: MomentsFormat): number {
  if (format === "bf16") return blockBytes(4 * numbers);
  const scales = momentScales(numbers, format);
  if (scales > 0) return blockBytes(2 * numbers) + blockBytes(8 * scales);
  return blockBytes(8 * numbers);
}

/** A training step over a forest of `tokens` tokens. */
export interface StepShape {
  tokens: number;
  checkpointing: boolean;
  /** Tokens that are scored; default: all. */
  scoredTokens?: number;
  /** Scored tokens of the largest tree: a prompt's completions; default: all that are scored, 1024 at most. */
  treeTokens?: number;
}

/** What training takes at its peak, counted as the engine allocates: decoder.cpp, block.cpp, scoring.cpp. */
export function trainingMemory(plan: MemoryPlan, step: StepShape): MemoryEstimate {
  const trained = adapterNumbers(plan) ?? parameterShapes(plan.config).map(numbersOf);
  const gradients = sum(trained.map((numbers) => blockBytes(4 * numbers)));
  const optimizer = sum(trained.map((numbers) => momentBytes(numbers, plan.moments ?? "f32")));
  const workspace = workspaceShare * stepWorkspace(plan, step) + workspaceRest;
  const taken = gradients + optimizer + workspace;
  return withTotal({
    weights: weightBytes(plan),
    gradients,
    optimizer,
    workspace,
    cache: 0,
    program: programBytes(plan, taken, plan.adapter == null ? weightBytes(plan) : 0),
  });
}

function stepWorkspace({ config, dtype, adapter }: MemoryPlan, step: StepShape): number {
  const { tokens, checkpointing } = step;
  const a = sizeOf(dtype);
  const { hiddenSize: hidden, intermediateSize: inner, heads, kvHeads, headDim, layers } = config;
  const [queries, keys] = [heads * headDim, kvHeads * headDim];
  const residual = 4 * hidden;
  const normsOfHeads = config.qkNorm ? (queries + keys) * a + 4 * (heads + kvHeads) : 0;
  const saved = residual + (2 * queries + 2 * keys + 2 * inner) * a + normsOfHeads + 4 * (2 + heads);
  const castGradient = dtype === "f32" ? 0 : hidden * a;
  const mlp = castGradient + 2 * inner * a + hidden * a + residual;
  const attention = castGradient + (2 * queries + 2 * keys) * a + hidden * a + residual;
  const rank = adapter?.rank ?? 0;
  // An adapter reads its input in f32, and has two narrow products a module at a time.
  const adapters = rank === 0 ? 0 : (dtype === "f32" ? 0 : 4 * Math.max(hidden, inner, queries)) + 8 * rank;
  const kept = layers * (checkpointing ? residual : residual + saved);
  const scratch = (checkpointing ? saved : 0) + Math.max(mlp, attention) + adapters;
  // Ids and positions, the residual stream after the last block, its gradient.
  const perToken = 8 + kept + scratch + 2 * residual;
  const scored = step.scoredTokens ?? tokens;
  const perRow = 3 * residual + hidden * a + 12;
  return tokens * perToken + scored * perRow + logitBytes(config, a, scored, step.treeTokens ?? Math.min(scored, 1024));
}

function logitBytes({ vocabSize }: ModelConfig, size: number, scored: number, treeTokens: number): number {
  const largestTree = Math.min(mostKeptLogits, treeTokens * vocabSize * size);
  return Math.min(scored * vocabSize * size, Math.max(keptLogits, largestTree));
}

/** Weights once more, packed for row products (row_product.cpp): plain matrices; an embedding of its own is only looked up. */
function packedBytes(plan: MemoryPlan): number {
  const { config, dtype, adapter } = plan;
  const matrices = parameterShapes(config).filter((parameter) => {
    const multiplied = parameter.name !== "model.embed_tokens.weight" || config.tiedHead;
    return parameter.decays && multiplied && heldBlocks(plan, parameter) === undefined;
  });
  const narrow = adapter == null ? [] : adapterTensors(adapterModules(adapter, config));
  const panels = ({ shape: [rows = 0, columns = 0] }: { shape: readonly number[] }, size: number) =>
    blockBytes(Math.ceil(rows / panelRows) * panelRows * columns * size);
  return sum(matrices.map((matrix) => panels(matrix, sizeOf(dtype)))) + sum(narrow.map((matrix) => panels(matrix, 4)));
}

/** What generation takes: the KV cache, and on a CPU what its products read, packed. */
export function generationMemory(
  plan: MemoryPlan,
  { cacheTokens, rows, device }: { cacheTokens: number; rows: number; device: "cpu" | "cuda" },
): MemoryEstimate {
  const { config, dtype } = plan;
  const { layers, kvHeads, headDim, vocabSize, hiddenSize, intermediateSize } = config;
  const weights = weightBytes(plan);
  const packed = device === "cpu" ? packedBytes(plan) : 0;
  return withTotal({
    weights: weights + packed,
    gradients: 0,
    optimizer: 0,
    workspace: rows * 4 * (vocabSize + 4 * hiddenSize + 3 * intermediateSize),
    cache: 2 * layers * cacheTokens * kvHeads * headDim * sizeOf(dtype),
    program: programBytes(plan, packed, 0),
  });
}

/** Bytes that this machine has for programs, or the container that we run in. */
export function machineMemory(): number {
  const limit = process.constrainedMemory();
  return limit > 0 ? Math.min(limit, totalmem()) : totalmem();
}

/** Whether "auto" and the others mean the CPU here, whose memory is the machine's. */
export function computesOnCpu(device: "auto" | "cpu" | "cuda"): boolean {
  return device === "cpu" || (device === "auto" && deviceInfo().cuda.devices.length === 0);
}

/** What training could be had for in less memory, the mildest first. */
export function lighterTrainings(plan: MemoryPlan, step: StepShape): { change: string; memory: MemoryEstimate }[] {
  const full = plan.adapter == null;
  const lora: AdapterConfig = { rank: 16, alpha: 32 };
  const short = { ...step, tokens: Math.min(step.tokens, 1024), checkpointing: true };
  delete short.scoredTokens;
  const adapted = { ...plan, adapter: plan.adapter ?? lora };
  const options: [string, MemoryPlan, StepShape, boolean][] = [
    ["--gradient-checkpointing", plan, { ...step, checkpointing: true }, !step.checkpointing],
    ["--gradient-checkpointing --max-tokens 1024", plan, short, step.tokens > 1024],
    ["--optimizer adamw_8bit --gradient-checkpointing --max-tokens 1024", { ...plan, moments: "8bit" }, short, full],
    ["--lora-rank 16 --gradient-checkpointing --max-tokens 1024", adapted, short, full],
    [
      "--quantize nf4 --lora-rank 16 --gradient-checkpointing --max-tokens 1024",
      { ...adapted, quantize: "nf4" },
      short,
      plan.quantize === undefined,
    ],
  ];
  return options.flatMap(([change, other, shape, applies]) =>
    applies ? [{ change, memory: trainingMemory(other, shape) }] : [],
  );
}

/** Whether memory holds what was estimated, unless it is more by as much as the estimate may err. */
export function fitsMemory({ total }: MemoryEstimate, available: number): boolean {
  return total <= 1.1 * available;
}

/**
 * Refuses what does not fit the machine.
 * @throws TemporaError with what would fit.
 */
export function requireMemory(
  what: string,
  needed: MemoryEstimate,
  available: number,
  lighter: readonly { change: string; memory: MemoryEstimate }[],
): void {
  if (fitsMemory(needed, available)) return;
  const fits = lighter.find(({ memory }) => fitsMemory(memory, available));
  throw new TemporaError(
    `${what} needs about ${gibibytes(needed.total)} of memory, the machine has ${gibibytes(available)}`,
    {
      remedy:
        fits === undefined
          ? "Take a smaller model or a machine with more memory."
          : `With ${fits.change} it takes about ${gibibytes(fits.memory.total)}.`,
    },
  );
}
