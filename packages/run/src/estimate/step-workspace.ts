import { type AdapterConfig, adapterModules, type DType, type ModelConfig } from "@tempora/engine";
import { Arena, Held } from "./arena.ts";
import { pairProducts } from "./pair-products.ts";

/** A training step over a forest of `tokens` tokens. */
export interface StepShape {
  tokens: number;
  checkpointing: boolean;
  /** Tokens that are scored; default: all. */
  scoredTokens?: number;
  /** Scored tokens of the largest tree: a prompt's completions; default: all that are scored, 1024 at most. */
  treeTokens?: number;
}

export interface ComputedModel {
  config: ModelConfig;
  dtype: DType;
  adapter?: AdapterConfig | null | undefined;
  /** Whether matrices are dequantised for each product. */
  quantized: boolean;
  /** Of the engine; default: the machine's. */
  threads?: number | undefined;
}

/** On the CPU (Budget in budget.h): logits of a step that the engine keeps at once, unless one tree has more rows, and the most that it then keeps. */
const keptLogits = 64 * 2 ** 20;
const mostKeptLogits = 512 * 2 ** 20;
/** Rows of a prompt that are computed at once, and logits of a decoding step (Budget in budget.h). */
const prefillRows = 512;
const decodedLogits = 64 * 2 ** 20;
/** A tree's gradients of keys and values are summed in parts of so many tokens, and so many parts at most (attention_plan.cpp). */
const partTokens = 128;
/** The head's gradient is computed in tiles (head.cpp), wider ones where bf16 is multiplied in pairs. */
const tileRows = 1024;
const tileColumns = 1024;
const pairTileColumns = 4096;
const mostParts = 4;

export const sizeOf = (dtype: DType) => (dtype === "f32" ? 4 : 2);

/** The most that products of a block take beside their operands. */
function blockProducts(model: ComputedModel, tokens: number): number {
  const products = pairProducts(model.dtype, model.threads);
  const whole = dequantised(model);
  if (products === undefined) return whole;
  const { hiddenSize: hidden, intermediateSize: inner, heads, kvHeads, headDim } = model.config;
  const queries = heads * headDim;
  const projected = queries + 2 * kvHeads * headDim;
  const panels = [
    [hidden, Math.max(inner, queries)],
    [projected, hidden],
    [2 * inner, hidden],
  ].map(([k = 0, n = 0]) => products.panels(k, n));
  if (model.adapter != null) return whole + Math.max(...panels);
  const gradients = [
    [hidden, projected],
    [queries, hidden],
    [hidden, 2 * inner],
    [inner, hidden],
  ].map(([inputs = 0, outputs = 0]) => products.gradients(tokens, inputs, outputs));
  return Math.max(whole + Math.max(...panels), ...gradients);
}

/** What the head's backward pass over `rows` takes. */
function headProducts(model: ComputedModel, rows: number, logits: number): number {
  const products = pairProducts(model.dtype, model.threads);
  const { hiddenSize: hidden } = model.config;
  const a = sizeOf(model.dtype);
  const tile = Math.min(rows, tileRows) * (products ? pairTileColumns : tileColumns);
  const tileBytes = tile * (logits <= mostKeptLogits ? a : a + 4);
  if (products === undefined) return tileBytes;
  const gradients = model.adapter == null ? products.gradients(Math.min(rows, tileRows), hidden, pairTileColumns) : 0;
  return Math.max(tileBytes + Math.max(products.panels(pairTileColumns, hidden), gradients), products.tiles(hidden));
}

type Projection = "q" | "k" | "v" | "o" | "gate" | "up" | "down";

/** Sizes of one token's rows, in bytes, and what the projections of a block take: `tokens` rows go through it, or a part of it. */
class Block {
  readonly a: number;
  readonly residual: number;
  readonly hidden: number;
  readonly queries: number;
  readonly keys: number;
  readonly inner: number;
  readonly #ranks: ReadonlyMap<string, number>;

  constructor(
    readonly model: ComputedModel,
    readonly tokens: number,
    /** Of generation, whose products with an adapter's A want the input in f32 (adapters.cpp). */
    readonly byRows = false,
  ) {
    const { config, dtype, adapter } = model;
    const modules = adapter == null ? [] : adapterModules(adapter, config);
    this.a = sizeOf(dtype);
    this.residual = 4 * config.hiddenSize;
    this.hidden = this.a * config.hiddenSize;
    this.queries = this.a * config.heads * config.headDim;
    this.keys = this.a * config.kvHeads * config.headDim;
    this.inner = this.a * config.intermediateSize;
    // The layers' adapters are alike but for patterns: the largest of each projection.
    const ranks = new Map<string, number>();
    for (const { name, rank } of modules) {
      const projection = /([a-z]+)_proj$/.exec(name)?.[1] ?? "";
      ranks.set(projection, Math.max(rank, ranks.get(projection) ?? 0));
    }
    this.#ranks = ranks;
  }

  matrix(arena: Arena, rowBytes: number): void {
    arena.take(this.tokens * rowBytes);
  }

  /** What the backward pass needs of attention and its inputs, beside the residual stream (allocate_attention). */
  attention(arena: Arena): void {
    const { heads, kvHeads, qkNorm } = this.model.config;
    const matrices = [this.queries, this.keys, this.keys];
    if (qkNorm) matrices.push(this.queries, this.keys, 4 * heads, 4 * kvHeads);
    for (const bytes of [...matrices, this.queries, 4, 4 * heads]) this.matrix(arena, bytes);
  }

  /** And of what follows (allocate_rows). */
  rows(arena: Arena): void {
    for (const bytes of [this.inner, this.inner, 4]) this.matrix(arena, bytes);
  }

  /** The norm of the block's input, or of the rows that go on. */
  normed(scratch: Arena): void {
    this.matrix(scratch, this.hidden);
  }

  /** Where adapters' products with A are kept for the way back, `kept` is the arena for them. */
  inputsForward(scratch: Arena, kept?: Arena): void {
    this.#addAll(scratch, ["q", "k", "v"], kept);
  }

  rowsForward(scratch: Arena, whole: boolean, kept?: Arena): void {
    this.#addAll(scratch, ["o"], kept);
    if (!whole) {
      this.#addAll(scratch, ["gate", "up"], kept);
      return;
    }
    scratch.scope(() => {
      this.matrix(scratch, this.inner);
      this.#addAll(scratch, ["gate", "up"], kept);
      this.#addAll(scratch, ["down"], kept);
    });
  }

  mlpBackward(scratch: Arena): void {
    scratch.scope(() => {
      this.matrix(scratch, this.inner);
      this.#narrow(scratch, "down");
      this.matrix(scratch, this.inner);
      this.#add(scratch, "down");
      this.#normalised(scratch);
      this.#project(scratch, ["gate", "up"]);
    });
  }

  outputBackward(scratch: Arena): void {
    scratch.scope(() => {
      this.#narrow(scratch, "o");
      this.#add(scratch, "o");
    });
  }

  attentionBackward(scratch: Arena): void {
    scratch.scope(() => {
      for (const bytes of [this.queries, this.keys, this.keys]) this.matrix(scratch, bytes);
      this.#normalised(scratch);
      this.#project(scratch, ["q", "k", "v"]);
    });
  }

  /** The residual stream's gradient in the activations' type. */
  castGradient(scratch: Arena): void {
    if (this.model.dtype !== "f32") this.matrix(scratch, this.hidden);
  }

  /** The normalised input again, and its gradient. */
  #normalised(scratch: Arena): void {
    for (const bytes of [this.hidden, this.residual]) this.matrix(scratch, bytes);
  }

  /** Backward through projections of a block's normalised input. */
  #project(scratch: Arena, names: readonly Projection[]): void {
    scratch.scope(() => {
      for (const name of names) this.#narrow(scratch, name);
      for (const name of names) this.#add(scratch, name);
    });
  }

  /** Adapters' products with A: all at once where the products by the weights take them in (narrow_term), else one by one. */
  #addAll(scratch: Arena, names: readonly Projection[], kept?: Arena): void {
    if (this.byRows || pairProducts(this.model.dtype, this.model.threads) === undefined) {
      for (const name of names) this.#add(scratch, name);
      return;
    }
    if (kept !== undefined) {
      for (const name of names) this.#narrow(kept, name);
      return;
    }
    scratch.scope(() => {
      for (const name of names) this.#narrow(scratch, name);
    });
  }

  /** An adapter's product with A: of the forward pass, or again for the gradients. */
  #add(scratch: Arena, name: Projection): void {
    const rank = this.#ranks.get(name);
    if (rank === undefined) return;
    scratch.scope(() => {
      this.matrix(scratch, 4 * rank);
      if (this.byRows && this.model.dtype !== "f32") this.matrix(scratch, (4 / this.a) * this.#inputs(name));
    });
  }

  #inputs(name: Projection): number {
    return name === "o" ? this.queries : name === "down" ? this.inner : this.hidden;
  }

  /** An adapter's product with A that stays, or its gradient until the projection is done. */
  #narrow(scratch: Arena, name: Projection): void {
    const rank = this.#ranks.get(name);
    if (rank !== undefined) this.matrix(scratch, 4 * rank);
  }
}

/** Rows of logits that are kept at once: whole trees (head_passes.cpp). */
function keptRows({ vocabSize }: ModelConfig, a: number, scored: number, tree: number): number {
  const row = vocabSize * a;
  const fitting = Math.floor(keptLogits / row);
  return Math.min(scored, tree > fitting ? tree : Math.floor(fitting / tree) * tree);
}

/** What kept log-probs of 16 bits count from: a number for each 256 columns of a row (cpu/head.cpp). */
function keptReferences({ vocabSize }: ModelConfig, a: number, rows: number): number {
  return a === 4 ? 0 : 4 * rows * Math.ceil(vocabSize / 256);
}

/**
 * What a training takes beside weights, gradients and moments: its first step, before there are moments, and each after it, in arenas
 * of one chunk.
 */
export function stepWorkspace(model: ComputedModel, step: StepShape): { first: number; later: number } {
  const held = new Held();
  const [arena, scratch] = [new Arena(held), new Arena(held)];
  const one = () => {
    for (const each of [arena, scratch]) each.reset();
    takeStep(model, step, { arena, scratch });
    return held.takeMost();
  };
  return { first: one(), later: one() };
}

/** The blocks of a model and their rows: behind the last one's attention only those go on that are scored. */
class Blocks {
  readonly all: Block;
  readonly scored: Block;

  constructor(
    readonly model: ComputedModel,
    tokens: number,
    rows: number,
  ) {
    this.all = new Block(model, tokens);
    this.scored = new Block(model, rows);
  }

  isLast(layer: number): boolean {
    return layer + 1 === this.model.config.layers;
  }

  rowsOf(layer: number): Block {
    return this.isLast(layer) ? this.scored : this.all;
  }

  activations(layer: number, arena: Arena): void {
    const rows = this.rowsOf(layer);
    rows.matrix(arena, rows.residual);
    this.all.attention(arena);
    rows.rows(arena);
    if (this.isLast(layer)) rows.matrix(arena, rows.queries);
  }

  forward(layer: number, scratch: Arena, whole: boolean, kept?: Arena): void {
    const rows = this.rowsOf(layer);
    scratch.scope(() => {
      this.all.normed(scratch);
      this.all.inputsForward(scratch, kept);
      if (this.isLast(layer)) rows.normed(scratch);
      rows.rowsForward(scratch, whole, kept);
    });
  }

  backward(layer: number, scratch: Arena): void {
    const rows = this.rowsOf(layer);
    rows.mlpBackward(scratch);
    scratch.scope(() => {
      this.all.matrix(scratch, this.all.queries);
      scratch.scope(() => {
        if (this.isLast(layer)) rows.matrix(scratch, rows.queries);
        rows.outputBackward(scratch);
      });
      this.all.attentionBackward(scratch);
    });
  }
}

/** Request by request: decoder.cpp, block.cpp, scoring.cpp, head_passes.cpp. */
function takeStep(
  model: ComputedModel,
  { tokens, checkpointing, scoredTokens: rows = tokens, treeTokens }: StepShape,
  { arena, scratch }: { arena: Arena; scratch: Arena },
): void {
  const { config } = model;
  const blocks = new Blocks(model, tokens, rows);
  const block = blocks.all;
  for (let ids = 0; ids < 2; ids++) block.matrix(arena, 4);
  arena.take(rows * 4);
  block.matrix(arena, block.residual);
  const before = arena.used;
  for (let layer = 0; layer < config.layers; layer++) {
    if (layer === 1) arena.expect((config.layers - 1) * (arena.used - before));
    scratch.scope(() => {
      blocks.activations(layer, checkpointing ? scratch : arena);
      blocks.rowsOf(layer).matrix(arena, block.residual);
      blocks.forward(layer, scratch, true, checkpointing ? undefined : arena);
    });
  }
  for (const bytes of [block.hidden, 4, block.residual, 4]) arena.take(rows * bytes);
  const tree = Math.max(1, treeTokens ?? Math.min(rows, 1024));
  const kept = keptRows(config, block.a, rows, tree);
  const logits = kept * config.vocabSize * block.a;
  scratch.scope(() => {
    for (const bytes of [4, 4]) scratch.take(kept * bytes);
    if (logits <= mostKeptLogits) scratch.take(logits + keptReferences(config, block.a, kept));
    for (const bytes of [4, 4]) scratch.take(kept * bytes);
    scratch.held.pass(headProducts(model, kept, logits));
  });
  arena.take(rows * block.residual);
  scratch.scope(() => {
    blocks.scored.castGradient(scratch);
    block.matrix(scratch, block.residual);
    block.castGradient(scratch);
    // All but the last are alike.
    for (let layer = Math.max(0, config.layers - 2); layer < config.layers; layer++) {
      scratch.scope(() => {
        if (checkpointing) {
          blocks.activations(layer, scratch);
          blocks.forward(layer, scratch, false);
        }
        blocks.backward(layer, scratch);
      });
    }
    const parts = Math.min(mostParts, 1 + Math.floor(tree / partTokens));
    const keysAndValues = parts * tokens * 2 * config.kvHeads * config.headDim * 4;
    scratch.held.pass(Math.max(keysAndValues, blockProducts(model, tokens)));
  });
}

/**
 * What a generation takes beside weights and cache (generation.cpp, cached_decoder.cpp): the first rows of prompts, before
 * the head is multiplied by, then others and a decoding step's, in an arena of one chunk.
 */
export function generationWorkspace(
  model: ComputedModel,
  { rows, cached }: { rows: number; cached: number },
): { first: number; later: number } {
  const { config } = model;
  const held = new Held();
  const scratch = new Arena(held);
  const forward = (count: number) => {
    const block = new Block(model, count, true);
    for (let ids = 0; ids < 2; ids++) block.matrix(scratch, 4);
    block.matrix(scratch, block.residual);
    block.normed(scratch);
    block.attention(scratch);
    block.rows(scratch);
    block.inputsForward(scratch);
    block.rowsForward(scratch, true);
    return block;
  };
  const prefill = () => scratch.scope(() => void forward(Math.min(prefillRows, cached)));
  prefill();
  const first = held.takeMost();
  prefill();
  scratch.scope(() => {
    const block = forward(rows);
    for (const bytes of [block.hidden, 4]) block.matrix(scratch, bytes);
    const row = config.vocabSize * 4;
    scratch.take(row * Math.max(1, Math.min(rows, Math.floor(decodedLogits / row))));
  });
  return { first, later: held.takeMost() };
}

/** The largest matrix of a block as numbers. */
function dequantised({ config, dtype, quantized }: ComputedModel): number {
  if (!quantized) return 0;
  const { hiddenSize, intermediateSize, heads, headDim } = config;
  return sizeOf(dtype) * hiddenSize * Math.max(intermediateSize, heads * headDim);
}
