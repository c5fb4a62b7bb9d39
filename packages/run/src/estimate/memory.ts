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
import { blockBytes } from "./arena.ts";
import { gibibytes } from "./gibibytes.ts";
import { panelColumns } from "./pair-products.ts";
import { generationWorkspace, type StepShape, sizeOf, stepWorkspace } from "./step-workspace.ts";

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
  /** What is trained on, where it is not in memory yet. */
  examples?: { rows: number; tokens: number } | undefined;
  /** Other adapters of the same shape that have generated and are held beside it. */
  adaptersBeside?: number | undefined;
  /** Of the engine; default: the machine's. */
  threads?: number | undefined;
  /** What this process holds already, where it is the one that will compute. */
  resident?: number | undefined;
  /** The CPU's engine has generated with these weights before it trains: what that was packed for stays until they change. */
  packed?: boolean | undefined;
}

/** Bytes by use, as `engine.memory()` names them. */
export interface MemoryEstimate {
  weights: number;
  gradients: number;
  optimizer: number;
  /** Activations and what the operations take beside them. */
  workspace: number;
  cache: number;
  /** Tensors on their way from files and to files, as far as they do not fit in where other memory is not taken yet. */
  files: number;
  /** Bun, what the command has read, the addon and its libraries. */
  program: number;
  total: number;
}

/** Resident memory of a command before it reads anything, on Linux, and what vocabulary and merges of a tokenizer take, an entry. */
const commandBytes = 71 * 2 ** 20;
const tokenizerEntryBytes = 700;
/** Of an example in JavaScript, as text and as ids, and of each of its tokens: measured too, with what the collector leaves lying. */
const exampleBytes = 1550;
const exampleTokenBytes = 16;
/** What the addon takes once it computes: its libraries, threads, the code that oneDNN writes for the products, and what measuring leaves. */
const addonBytes = 25 * 2 ** 20;

/** NF4 with double quantisation (QLoRA, arXiv:2305.14314): 4 bits, a byte for each 64 numbers, a float for each 256 of those. */
const nf4Bytes = 1 / 2 + (1 + 4 / 256) / 64;

const numbersOf = ({ shape }: { shape: readonly number[] }) => shape.reduce((product, size) => product * size, 1);
const sum = (values: readonly number[]) => values.reduce((total, value) => total + value, 0);

function withTotal(parts: Omit<MemoryEstimate, "total">): MemoryEstimate {
  return { ...parts, total: sum(Object.values(parts)) };
}

/** What this process holds, with what the engine's code will add; of another process, what such a command takes. */
function programBytes({ config, resident, examples }: MemoryPlan): number {
  const read = examples === undefined ? 0 : examples.rows * exampleBytes + examples.tokens * exampleTokenBytes;
  return (resident ?? commandBytes + config.vocabSize * tokenizerEntryBytes) + read + addonBytes;
}

/**
 * Tensors in JavaScript's memory that rise above everything else: while the weights are read, the two largest (one is read while
 * another is copied, and what was copied is not collected at once); while a state is saved, one parameter's moments in f32, beside what they are made from.
 */
function fileBytes(plan: MemoryPlan, { trained, engine }: { trained: readonly number[]; engine: number }): number {
  const { config, dtype, readAs } = plan;
  const read = parameterShapes(config)
    .map((parameter) => heldAsRead(plan, parameter) ?? numbersOf(parameter) * sizeOf(readAs ?? dtype))
    .sort((a, b) => b - a);
  const reading = weightBytes({ ...plan, adapter: null }) + sum(read.slice(0, 2)) - engine;
  const saved = Math.max(0, ...trained);
  const stored = plan.moments === "f32" || plan.moments === undefined ? 0 : momentBytes(saved, plan.moments);
  return Math.max(reading, 8 * saved + stored);
}

function adapterNumbers({ adapter, config }: MemoryPlan): number[] | null {
  return adapter == null ? null : adapterTensors(adapterModules(adapter, config)).map(numbersOf);
}

/** Bytes in which a parameter is read that stays as its file holds it. */
function heldAsRead(plan: MemoryPlan, parameter: ParameterShape): number | undefined {
  return plan.quantize === "gguf" ? heldBlocks(plan, parameter) : undefined;
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
  const own = sum((adapterNumbers(plan) ?? []).map((numbers) => blockBytes(4 * numbers)));
  return sum(base) + own + (plan.adaptersBeside ?? 0) * (own + adapterPanels(plan));
}

function momentBytes(numbers: number, format: MomentsFormat): number {
  if (format === "bf16") return blockBytes(4 * numbers);
  const scales = momentScales(numbers, format);
  if (scales > 0) return blockBytes(2 * numbers) + blockBytes(8 * scales);
  return blockBytes(8 * numbers);
}

/** What training takes at its peak, counted as the engine allocates. */
export function trainingMemory(plan: MemoryPlan, step: StepShape): MemoryEstimate {
  const trained = adapterNumbers(plan) ?? parameterShapes(plan.config).map(numbersOf);
  const weights = weightBytes(plan) + (plan.packed ? packedBytes(plan) : trainedPanels(plan));
  const gradients = sum(trained.map((numbers) => blockBytes(4 * numbers)));
  const optimizer = sum(trained.map((numbers) => momentBytes(numbers, plan.moments ?? "f32")));
  const { first, later } = stepWorkspace(computed(plan), step);
  const workspace = Math.max(later, first - optimizer);
  const engine = weights + gradients + optimizer + workspace;
  const files = fileBytes(plan, { trained, engine });
  return withTotal({ weights, gradients, optimizer, workspace, cache: 0, files, program: programBytes(plan) });
}

function computed({ config, dtype, adapter, quantize, threads }: MemoryPlan) {
  return { config, dtype, adapter, quantized: quantize !== undefined, threads };
}

function panelBytes({ shape: [rows = 0, columns = 0] }: { shape: readonly number[] }, size: number): number {
  const together = panelColumns();
  return blockBytes(Math.ceil(rows / together) * together * columns * size);
}

/** An adapter's B once more: its products read panels in training too (adapters.cpp, weights.cpp). */
function trainedPanels(plan: MemoryPlan): number {
  return adapterPanels(plan, (name) => name.includes("lora_B"));
}

function adapterPanels({ config, adapter }: MemoryPlan, chosen: (name: string) => boolean = () => true): number {
  if (adapter == null) return 0;
  const tensors = adapterTensors(adapterModules(adapter, config)).filter(({ name }) => chosen(name));
  return sum(tensors.map((tensor) => panelBytes(tensor, 4)));
}

/** Weights once more, packed for row products (row_product.cpp): plain matrices; an embedding of its own is only looked up. */
function packedBytes(plan: MemoryPlan): number {
  const { config, dtype } = plan;
  const matrices = parameterShapes(config).filter((parameter) => {
    const multiplied = parameter.name !== "model.embed_tokens.weight" || config.tiedHead;
    return parameter.decays && multiplied && heldBlocks(plan, parameter) === undefined;
  });
  return sum(matrices.map((matrix) => panelBytes(matrix, sizeOf(dtype)))) + adapterPanels(plan);
}

/** The head's panels, which the first token that is generated makes. */
function headPanels(plan: MemoryPlan): number {
  const { vocabSize, hiddenSize } = plan.config;
  return panelBytes({ shape: [vocabSize, hiddenSize] }, sizeOf(plan.dtype));
}

/** What generation takes: the KV cache, and on a CPU what its products read, packed. */
export function generationMemory(
  plan: MemoryPlan,
  { cacheTokens, rows, device }: { cacheTokens: number; rows: number; device: "cpu" | "cuda" },
): MemoryEstimate {
  const { layers, kvHeads, headDim } = plan.config;
  const weights = weightBytes(plan) + (device === "cpu" ? packedBytes(plan) : 0);
  const cache = 2 * layers * blockBytes(cacheTokens * kvHeads * headDim * sizeOf(plan.dtype));
  const { first, later } = generationWorkspace(computed(plan), { rows, cached: cacheTokens });
  const workspace = Math.max(later, first - (device === "cpu" ? headPanels(plan) : 0));
  const files = fileBytes(plan, { trained: [], engine: weights + cache + workspace });
  return withTotal({ weights, gradients: 0, optimizer: 0, workspace, cache, files, program: programBytes(plan) });
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
