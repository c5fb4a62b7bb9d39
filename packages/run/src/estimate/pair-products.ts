// What the CPU's products of large matrices of bf16 take beside their operands (pair_product.cpp, pair_gradient.cpp).

import { type DType, deviceInfo } from "@tempora/engine";

/** The most panels that a thread lays out (on CPUs with a second cache of 2 MB), bytes and rows of a transposed operand, pairs of one pass. */
const panelsBytes = 2 ** 20;
const chunkRows = 96;
const chunkBytes = 300 * 2 ** 10;
const leastChunks = 4;
const mostPairs = 1024;
/** Of the head's forward pass (head.cpp), a thread's. */
const headTile = { rows: 128, columns: 256 };
/** The bytes of a number of a panel, by the instructions. */
const pairNumberBytes: Record<string, number> = { avx2: 4, avx512: 4, avx512bf16: 2 };
/** The columns of a panel, by the instructions (two vectors of f32); others have 32. */
const narrowPanels: Record<string, number> = { baseline: 8, avx2: 16 };

/** Columns that lie together in a product's panels here. */
export const panelColumns = () => narrowPanels[deviceInfo().cpuKernels] ?? 32;

/** The products of bf16 in pairs here; undefined where oneDNN multiplies. */
export function pairProducts(dtype: DType, threads: number | undefined): PairProducts | undefined {
  const here = deviceInfo();
  const numberBytes = dtype === "bf16" ? pairNumberBytes[here.cpuKernels] : undefined;
  return numberBytes === undefined ? undefined : new PairProducts(threads ?? here.threads, panelColumns(), numberBytes);
}

class PairProducts {
  constructor(
    readonly threads: number,
    readonly columns: number,
    readonly numberBytes: number,
  ) {}

  /** What a product lays out of a weight, from `k` inputs to `n` outputs, each thread some panels at a time. */
  panels(k: number, n: number): number {
    const pass = k / Math.ceil(k / (2 * mostPairs));
    const panel = pass * this.columns * this.numberBytes;
    const panels = Math.ceil(n / this.columns / this.threads);
    const panelsAtOnce = Math.max(1, Math.min(panels, Math.floor(panelsBytes / panel)));
    return this.threads * panel * panelsAtOnce;
  }

  /** What the head's tiles take, each thread's: what is laid out of the weight, and logits. */
  tiles(hidden: number): number {
    const { rows, columns } = headTile;
    return this.threads * (columns * hidden * this.numberBytes + rows * columns * 4);
  }

  /** What the product for the gradients of weights of one input lays out: all of its `tokens` inputs, and of all the outputs' gradients some rows a thread. */
  gradients(tokens: number, inputs: number, outputs: number): number {
    const pass = tokens / Math.ceil(tokens / (2 * mostPairs));
    const most = Math.min(chunkBytes / (this.numberBytes * pass), outputs / (leastChunks * this.threads));
    const rows = Math.max(1, Math.floor(most / chunkRows)) * chunkRows;
    return this.numberBytes * pass * (Math.ceil(inputs / this.columns) * this.columns + this.threads * rows);
  }
}
