import { type Forest, ForestBuilder } from "@tempora/engine";
import { type Place, TemporaError } from "@tempora/errors";
import { addPrefixes } from "./prefix-forest.ts";

/** Tokens that sharing the beginning of prompts must save in all: less is not worth another node. */
const worthSharing = 8;

/** One prompt with the completions that must be computed together: two for a pair, one for a supervised row. */
export interface PackItem {
  promptIds: readonly number[];
  completions: readonly (readonly number[])[];
  /** Where the row came from, for messages. */
  where?: Place;
}

/** A forest of some of the items. Items with equal prompts share the prompt's node, others what their prompts begin with. */
export interface MicroBatch {
  forest: Forest;
  /** Indices into the items. */
  items: number[];
  /** leaves[k] are the nodes of item items[k]'s completions, in their order. */
  leaves: number[][];
}

export interface PackLimits {
  /** Most tokens of a forest. */
  maxTokens: number;
  /** Most tokens from a root to a leaf: the model's context. */
  maxPositions: number;
}

/**
 * Packs items into forests of at most maxTokens tokens: the largest prompt groups first, each into the first forest with
 * room. A group of items with one prompt is split only where it alone exceeds a forest. The order depends on nothing
 * but the items. Throws TemporaError for an item that fits no forest or exceeds the context.
 */
export function packForests(items: readonly PackItem[], limits: PackLimits): MicroBatch[] {
  const groups = groupByPrompt(items, limits);
  const bins: { tokens: number; groups: Group[] }[] = [];
  for (const group of groups) {
    const bin = bins.find((candidate) => candidate.tokens + group.tokens <= limits.maxTokens);
    if (bin) {
      bin.tokens += group.tokens;
      bin.groups.push(group);
    } else bins.push({ tokens: group.tokens, groups: [group] });
  }
  return bins.map((bin) => buildBatch(items, bin.groups));
}

interface Group {
  items: number[];
  tokens: number;
}

function groupByPrompt(items: readonly PackItem[], limits: PackLimits): Group[] {
  const open = new Map<string, Group>();
  const groups: Group[] = [];
  items.forEach((item, index) => {
    const completionTokens = checkItem(item, limits);
    const prompt = item.promptIds.join(",");
    let group = open.get(prompt);
    if (group === undefined || group.tokens + completionTokens > limits.maxTokens) {
      group = { items: [], tokens: item.promptIds.length };
      open.set(prompt, group);
      groups.push(group);
    }
    group.items.push(index);
    group.tokens += completionTokens;
  });
  return groups.sort((a, b) => b.tokens - a.tokens || (a.items[0] as number) - (b.items[0] as number));
}

/** Returns the tokens of the item's completions. */
function checkItem(item: PackItem, limits: PackLimits): number {
  const where = item.where ?? {};
  const prompt = item.promptIds.length;
  if (prompt === 0) {
    throw new TemporaError("The prompt has no tokens", { where, remedy: "Give every row a prompt." });
  }
  let completionTokens = 0;
  for (const completion of item.completions) {
    if (completion.length === 0) {
      throw new TemporaError("A completion has no tokens", { where, remedy: "Remove the row or give it an answer." });
    }
    if (prompt + completion.length > limits.maxPositions) {
      throw new TemporaError(
        `Prompt and completion have ${prompt + completion.length} tokens, the model's context holds ${limits.maxPositions}`,
        { where, remedy: "Shorten the row or remove it; nothing is cut off silently." },
      );
    }
    completionTokens += completion.length;
  }
  if (prompt + completionTokens > limits.maxTokens) {
    throw new TemporaError(
      `The row has ${prompt + completionTokens} tokens, a micro-batch holds at most ${limits.maxTokens}`,
      { where, remedy: "Raise maxTokens (--max-tokens) to at least the longest row, or remove the row." },
    );
  }
  return completionTokens;
}

function buildBatch(items: readonly PackItem[], groups: readonly Group[]): MicroBatch {
  const builder = new ForestBuilder();
  const batch: number[] = [];
  const leaves: number[][] = [];
  const prompts = groups.map((group) => (items[group.items[0] as number] as PackItem).promptIds);
  const onEnd = (index: number, prompt: number) => {
    for (const number of (groups[index] as Group).items) {
      batch.push(number);
      leaves.push((items[number] as PackItem).completions.map((completion) => builder.add(completion, prompt, true)));
    }
  };
  addPrefixes(builder, prompts, { worth: worthSharing, onEnd });
  return { forest: builder.build(), items: batch, leaves };
}

/** The rows of each optimizer step: `order` cut into batches of `size`; the last one may be smaller. */
export function optimizerBatches(order: readonly number[], size: number): number[][] {
  const batches: number[][] = [];
  for (let start = 0; start < order.length; start += size) batches.push(order.slice(start, start + size));
  return batches;
}
