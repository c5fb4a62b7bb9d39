import { TemporaError } from "@tempora/errors";
import type { MomentsFormat, Quantization } from "./engine-types.ts";
import { type Forest, nodeCount } from "./forest.ts";
import { couplesPairs, lossTypes, type PreferenceLoss } from "./losses.ts";
import type { ModelConfig } from "./model.ts";

// What is checked before a call crosses into C++, and worded for people.

function refuse(what: string, remedy: string, field?: string): never {
  throw new TemporaError(what, field === undefined ? { remedy } : { remedy, where: { field } });
}

interface Range {
  /** Smallest allowed value. */
  least?: number;
  /** Smallest value that is too small. */
  above?: number;
  /** Largest allowed value. */
  most?: number;
  /** Smallest value that is too large. */
  below?: number;
  integer?: boolean;
}

/** A finite number in a range, or a TemporaError that names the option. */
export function checkNumber(value: number, name: string, range: Range = {}): number {
  const { least, above, most, below, integer = false } = range;
  const parts = [integer ? "a whole number" : "a finite number"];
  if (least !== undefined) parts.push(`at least ${least}`);
  if (above !== undefined) parts.push(`above ${above}`);
  if (most !== undefined) parts.push(`at most ${most}`);
  if (below !== undefined) parts.push(`below ${below}`);
  const good =
    typeof value === "number" &&
    (integer ? Number.isSafeInteger(value) : Number.isFinite(value)) &&
    (least === undefined || value >= least) &&
    (above === undefined || value > above) &&
    (most === undefined || value <= most) &&
    (below === undefined || value < below);
  if (!good) refuse(`${name} is ${String(value)}`, `Give ${parts.join(", ")}.`, name);
  return value;
}

/** Token ids inside the vocabulary. `describe` names the place for the message. */
export function checkIds(ids: ArrayLike<number>, vocabSize: number, describe: (index: number) => string): void {
  if (typeof ids !== "object" || ids === null || !Number.isInteger(ids.length)) {
    refuse(`Token ids are given as ${typeof ids}`, "Give an array of whole numbers.");
  }
  for (let i = 0; i < ids.length; i++) {
    const id = ids[i] as number;
    if (Number.isInteger(id) && id >= 0 && id < vocabSize) continue;
    refuse(
      `Token id ${String(id)} at ${describe(i)} lies outside the vocabulary of ${vocabSize} tokens`,
      "Tokenize with this model's own tokenizer.",
    );
  }
}

/** Tokens from the root to the end of each node [N]. */
export function pathLengths(forest: Forest): Int32Array {
  const ends = new Int32Array(nodeCount(forest));
  for (let node = 0; node < ends.length; node++) {
    const parent = forest.nodeParent[node] as number;
    const length = (forest.nodeStart[node + 1] as number) - (forest.nodeStart[node] as number);
    ends[node] = (parent < 0 ? 0 : (ends[parent] as number)) + length;
  }
  return ends;
}

/** What JavaScript passes without a type checker's word. */
const forestArrays = {
  tokens: Int32Array,
  nodeStart: Int32Array,
  nodeParent: Int32Array,
  nodeScored: Uint8Array,
} as const;

function checkStructure(forest: Forest): void {
  const remedy = "Build forests by ForestBuilder.";
  for (const [name, type] of Object.entries(forestArrays)) {
    if (!(forest[name as keyof typeof forestArrays] instanceof type))
      refuse(`The forest's ${name} are no ${type.name}`, remedy);
  }
  const nodes = nodeCount(forest);
  if (nodes === 0) refuse("The forest is empty", "Give at least one node.");
  if (forest.nodeStart.length !== nodes + 1 || forest.nodeScored.length !== nodes) {
    refuse(
      `The forest has ${nodes} nodes, but ${forest.nodeStart.length} starts and ${forest.nodeScored.length} scored marks`,
      remedy,
    );
  }
  if (forest.nodeStart[0] !== 0 || forest.nodeStart[nodes] !== forest.tokens.length) {
    refuse(`The forest's nodes do not cover its ${forest.tokens.length} tokens`, remedy);
  }
  for (let node = 0; node < nodes; node++) {
    const parent = forest.nodeParent[node] as number;
    if ((forest.nodeStart[node] as number) >= (forest.nodeStart[node + 1] as number)) {
      refuse(`Node ${node} of the forest has no tokens`, remedy);
    }
    if (parent < -1 || parent >= node) refuse(`Node ${node} of the forest has parent ${parent}`, remedy);
  }
}

/** A well-formed forest whose ids and paths fit the model. Returns the path length of each node. */
export function checkForest(forest: Forest, config: ModelConfig): Int32Array {
  checkStructure(forest);
  checkIds(forest.tokens, config.vocabSize, (index) => {
    let node = 0;
    while ((forest.nodeStart[node + 1] as number) <= index) node++;
    return `position ${index - (forest.nodeStart[node] as number)} of node ${node}`;
  });
  const ends = pathLengths(forest);
  for (let node = 0; node < ends.length; node++) {
    const length = ends[node] as number;
    if (length <= config.maxPositions) continue;
    refuse(
      `The path to node ${node} has ${length} tokens, but the model takes ${config.maxPositions}`,
      "Shorten the prompt or the completion, or drop the row.",
    );
  }
  return ends;
}

export function checkNode(node: number, forest: Forest, name: string): void {
  if (Number.isInteger(node) && node >= 0 && node < nodeCount(forest)) return;
  refuse(
    `${name} is node ${node}, but the forest has nodes 0 to ${nodeCount(forest) - 1}`,
    "Use the indices that ForestBuilder returned.",
    name,
  );
}

/** Tokens of a node that have a log-prob: none in context nodes, all but the first in a scored root. */
export function scoredTokens(forest: Forest, node: number): number {
  if (forest.nodeScored[node] === 0) return 0;
  const length = (forest.nodeStart[node + 1] as number) - (forest.nodeStart[node] as number);
  return (forest.nodeParent[node] as number) < 0 ? length - 1 : length;
}

/** Tokens of the completion that ends in `leaf`: the scored ones on its path. */
export function completionLength(forest: Forest, leaf: number): number {
  let tokens = 0;
  for (let node = leaf; node >= 0; node = forest.nodeParent[node] as number) tokens += scoredTokens(forest, node);
  return tokens;
}

/** A preference pair's completions: leaf nodes of the forest, and the reference model's summed log-probs of them. */
export interface PreferencePair {
  chosen: number;
  rejected: number;
  referenceChosen: number;
  referenceRejected: number;
}

export function checkPairs(pairs: readonly PreferencePair[], forest: Forest): void {
  if (pairs.length === 0) refuse("There are no pairs", "Give at least one pair of completions.");
  pairs.forEach((pair, index) => {
    for (const side of ["chosen", "rejected"] as const) {
      checkNode(pair[side], forest, `pairs[${index}].${side}`);
      if (completionLength(forest, pair[side]) > 0) continue;
      refuse(
        `pairs[${index}].${side} is node ${pair[side]}, which has no scored tokens`,
        "Mark the nodes of a completion as scored; a completion needs at least one token after the prompt.",
      );
    }
    if (pair.chosen === pair.rejected) {
      refuse(
        `Chosen and rejected of pairs[${index}] are the same node ${pair.chosen}`,
        "Drop pairs whose completions are equal.",
      );
    }
    for (const side of ["referenceChosen", "referenceRejected"] as const) {
      if (Number.isFinite(pair[side])) continue;
      refuse(`pairs[${index}].${side} is ${pair[side]}`, "Score the pair with the reference model first.");
    }
  });
}

/** Loss options that have a meaning. */
export function checkLoss(loss: PreferenceLoss): void {
  if (loss.terms.length === 0) refuse("The loss has no terms", `Name at least one of ${lossTypes.join(", ")}.`);
  for (const { type, weight } of loss.terms) {
    if (!lossTypes.includes(type))
      refuse(`There is no loss type ${String(type)}`, `Use one of ${lossTypes.join(", ")}.`);
    checkNumber(weight, `the weight of ${type}`);
  }
  checkNumber(loss.beta, "beta", { above: 0 });
  const smoothing = checkNumber(loss.labelSmoothing ?? 0, "labelSmoothing", { least: 0, below: 0.5 });
  if (smoothing === 0 && loss.terms.some((term) => term.type === "exo_pair")) {
    refuse("exo_pair needs label smoothing", "Set labelSmoothing above 0, for example 0.001.", "labelSmoothing");
  }
  checkNumber(loss.discopopTau ?? 0.05, "discopopTau", { above: 0 });
}

export function checkMomentsFormat(format: MomentsFormat): MomentsFormat {
  if (["f32", "bf16", "8bit"].includes(format)) return format;
  return refuse(`There are no moments in ${String(format)}`, 'Use "f32", "bf16" or "8bit".', "moments");
}

export function checkQuantize(format: Quantization | undefined): void {
  if (format === undefined || format === "nf4" || format === "gguf") return;
  refuse(`There is no quantisation ${String(format)}`, 'Use "nf4" or "gguf", or leave it out.', "quantize");
}

/** Totals of the optimizer batch that a call is a part of. */
export function checkTotals(loss: PreferenceLoss, pairs: number, totalPairs: number, totalChosenTokens: number): void {
  checkNumber(totalPairs, "totalPairs", { least: pairs });
  checkNumber(totalChosenTokens, "totalChosenTokens", { least: 1 });
  if (couplesPairs(loss) && totalPairs !== pairs) {
    refuse(
      `This call has ${pairs} of ${totalPairs} pairs, but an aot loss sorts over the whole batch`,
      "Give all pairs of the batch in one call, or form the coefficients by preferenceLoss() and use accumulate().",
    );
  }
}

/** Per-token coefficients [T], all finite. */
export function checkCoefficients(coefficients: Float32Array, forest: Forest): void {
  if (coefficients.length !== forest.tokens.length) {
    refuse(
      `There are ${coefficients.length} coefficients for ${forest.tokens.length} tokens`,
      "Give one for each token of the forest; those of unscored tokens are ignored.",
    );
  }
  const bad = coefficients.findIndex((value) => !Number.isFinite(value));
  if (bad >= 0) refuse(`Coefficient ${bad} is ${coefficients[bad]}`, "Give finite derivatives only.");
}

/** Sizes of a model that the engine can hold together. */
export function checkConfig(config: ModelConfig): void {
  const sizes = [
    "vocabSize",
    "hiddenSize",
    "intermediateSize",
    "layers",
    "heads",
    "kvHeads",
    "headDim",
    "maxPositions",
  ] as const;
  for (const name of sizes) checkNumber(config[name], name, { least: 1, most: 0x7fffffff, integer: true });
  checkNumber(config.normEps, "normEps", { above: 0 });
  checkNumber(config.ropeTheta, "ropeTheta", { above: 0 });
  if (config.headDim % 2 !== 0)
    refuse(`headDim is ${config.headDim}`, "Rotary positions need an even head dimension.", "headDim");
  if (config.heads % config.kvHeads !== 0) {
    refuse(
      `${config.heads} heads cannot share ${config.kvHeads} key/value heads`,
      "kvHeads must divide heads.",
      "kvHeads",
    );
  }
  if (config.windows.length !== config.layers) {
    refuse(
      `windows has ${config.windows.length} entries for ${config.layers} layers`,
      "Give one for each layer; 0 for no window.",
      "windows",
    );
  }
  config.windows.forEach((window, layer) => {
    checkNumber(window, `windows[${layer}]`, { least: 0, most: 0x7fffffff, integer: true });
  });
}
