import type { Forest, ModelConfig } from "@tempora/engine";
import type { LedgerTotals } from "./results.ts";

export function noTokens(): LedgerTotals {
  return {
    promptTokens: 0,
    generatedTokens: 0,
    judgedTokens: 0,
    scoredTokens: 0,
    trainedTokens: 0,
    billedPromptTokens: 0,
    billedTokens: 0,
    flops: 0,
  };
}

export function addTotals(a: LedgerTotals, b: LedgerTotals): LedgerTotals {
  return {
    promptTokens: a.promptTokens + b.promptTokens,
    generatedTokens: a.generatedTokens + b.generatedTokens,
    judgedTokens: a.judgedTokens + b.judgedTokens,
    scoredTokens: a.scoredTokens + b.scoredTokens,
    trainedTokens: a.trainedTokens + b.trainedTokens,
    billedPromptTokens: a.billedPromptTokens + b.billedPromptTokens,
    billedTokens: a.billedTokens + b.billedTokens,
    flops: a.flops + b.flops,
  };
}

/** Weights that a token is multiplied with in the decoder blocks (no embedding, no head). */
export function blockParameters(config: ModelConfig): number {
  const { hiddenSize: hidden, intermediateSize: inner, headDim, heads, kvHeads, layers } = config;
  const attention = 2 * hidden * heads * headDim + 2 * hidden * kvHeads * headDim;
  return layers * (attention + 3 * hidden * inner);
}

/** All parameters, norms and biases included, counted from the shapes of the model. */
export function countParameters(parameters: readonly { shape: readonly number[] }[]): number {
  return parameters.reduce((sum, { shape }) => sum + shape.reduce((product, size) => product * size, 1), 0);
}

/**
 * FLOPs of a forward pass, as usually counted (Kaplan et al. 2020, appendix B; multiply and add are two): each of
 * `tokens` costs 2 · blockParameters; each attended position costs 4 · heads · headDim in each layer; each row whose
 * log-probs or next token are asked for costs 2 · hidden · vocabulary in the head. Norms, rope and softmax are left out.
 */
export function forwardFlops(
  config: ModelConfig,
  work: { tokens: number; attended: number; headRows: number },
): number {
  return (
    2 * blockParameters(config) * work.tokens +
    4 * config.heads * config.headDim * work.attended +
    2 * config.hiddenSize * config.vocabSize * work.headRows
  );
}

/** Positions that `count` tokens attend to over all layers when the first of them has `before` tokens ahead of it. */
export function attendedPositions(config: ModelConfig, before: number, count: number): number {
  let sum = 0;
  for (const window of config.windows) {
    const full = window === 0 ? count : Math.max(0, Math.min(count, window - before));
    // Tokens that see less than a window: before + 1, before + 2, ...; the others see exactly the window.
    sum += full * before + (full * (full + 1)) / 2 + (count - full) * window;
  }
  return sum;
}

/** Tokens, attended positions and head rows of a forest as it is computed: shared nodes once. */
export function forestWork(
  config: ModelConfig,
  forest: Forest,
): { tokens: number; attended: number; headRows: number } {
  const ends = new Array<number>(forest.nodeParent.length);
  let attended = 0;
  let headRows = 0;
  forest.nodeParent.forEach((parent, node) => {
    const count = (forest.nodeStart[node + 1] as number) - (forest.nodeStart[node] as number);
    const before = parent < 0 ? 0 : (ends[parent] as number);
    ends[node] = before + count;
    attended += attendedPositions(config, before, count);
    if (forest.nodeScored[node]) headRows += count;
  });
  return { tokens: forest.tokens.length, attended, headRows };
}

export interface TrainingPasses {
  /** Whether activations are recomputed. */
  checkpointing: boolean;
  /** Whether the weights are frozen under an adapter. */
  frozen: boolean;
}

/**
 * How many forward passes a forward and a backward pass cost: three, one more where activations are recomputed, one less where
 * frozen weights need no gradient; an adapter's own narrow products are left out.
 */
export function trainingPasses({ checkpointing, frozen }: TrainingPasses): number {
  return 3 + (checkpointing ? 1 : 0) - (frozen ? 1 : 0);
}

/** Adds up what a stage computes. */
export class Meter {
  readonly totals: LedgerTotals;

  /** `before`: what an earlier process computed of the same stage. */
  constructor(
    readonly config: ModelConfig,
    before: LedgerTotals | null = null,
  ) {
    this.totals = { ...(before ?? noTokens()) };
  }

  /** A scoring pass. */
  score(forest: Forest): void {
    this.totals.scoredTokens += forest.tokens.length;
    this.totals.flops += forwardFlops(this.config, forestWork(this.config, forest));
  }

  /** Forward and backward. */
  train(forest: Forest, how: TrainingPasses): void {
    this.totals.trainedTokens += forest.tokens.length;
    this.totals.flops += trainingPasses(how) * forwardFlops(this.config, forestWork(this.config, forest));
  }

  /** The prompts of a generation: each node of their forest once. */
  prompts(forest: Forest): void {
    const { tokens, attended } = forestWork(this.config, forest);
    this.totals.promptTokens += tokens;
    this.totals.flops += forwardFlops(this.config, { tokens, attended, headRows: 0 });
  }

  /** `tokens` new tokens after a path of `before` tokens: a forward pass and a head row each. */
  generated(before: number, tokens: number, purpose: "answer" | "judgement"): void {
    if (purpose === "answer") this.totals.generatedTokens += tokens;
    else this.totals.judgedTokens += tokens;
    const attended = attendedPositions(this.config, before, tokens);
    this.totals.flops += forwardFlops(this.config, { tokens, attended, headRows: tokens });
  }
}
