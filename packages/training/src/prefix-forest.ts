import { type Forest, ForestBuilder } from "@tempora/engine";

export interface PrefixForest {
  forest: Forest;
  /** leaves[k] is the node at which sequence k ends. */
  leaves: number[];
}

/**
 * The forest in which every prefix that two sequences have in common is held once: a judge's rubric for all its
 * prompts, a prompt for all its responses. Equal sequences end at the same node.
 * @param adapters what each sequence goes through (Forest.rootAdapters): those of different ones share nothing
 */
export function prefixForest(
  sequences: readonly (readonly number[])[],
  adapters: readonly (string | null | undefined)[] = [],
): PrefixForest {
  const builder = new ForestBuilder();
  const leaves = new Array<number>(sequences.length).fill(-1);
  const members = Map.groupBy(sequences.keys(), (index) => adapters[index]);
  for (const [adapter, own] of members) {
    const some = own.map((index) => sequences[index] as readonly number[]);
    const onEnd = (sequence: number, node: number) => {
      leaves[own[sequence] as number] = node;
    };
    addPrefixes(builder, some, { worth: 1, adapter, onEnd });
  }
  return { forest: builder.build(), leaves };
}

/** Some of the sequences, which agree in their tokens before `probe`; those before `depth` are in the forest. */
interface Sharers {
  members: number[];
  depth: number;
  probe: number;
  parent: number;
}

export interface PrefixOptions {
  /** Tokens that sharing a prefix must save, since every further node costs a little too. */
  worth: number;
  /** What the trees go through (Forest.rootAdapters). */
  adapter?: string | null | undefined;
  /** Hears at once at which node a sequence ends, and may add children. */
  onEnd(sequence: number, node: number): void;
}

/**
 * Adds nodes (not scored) for the sequences, none of them empty. A prefix that several have in common is held once where
 * that is worth it.
 */
export function addPrefixes(
  builder: ForestBuilder,
  sequences: readonly (readonly number[])[],
  { worth, adapter, onEnd }: PrefixOptions,
): void {
  const order = sequences.map((_, index) => index);
  order.sort((a, b) => compare(sequences[a] as number[], sequences[b] as number[]) || a - b);
  // A work list instead of recursion: sequences that only grow by one token would nest as deep as they are long.
  const pending: Sharers[] = [{ members: order, depth: 0, probe: 0, parent: -1 }];
  for (let group = pending.shift(); group !== undefined; group = pending.shift()) {
    const { depth, parent } = group;
    for (const members of splitByToken(sequences, group.members, group.probe)) {
      const first = sequences[members[0] as number] as readonly number[];
      const end = commonLength(sequences, members);
      const ended = members.filter((member) => (sequences[member] as readonly number[]).length === end);
      const longer = members.slice(ended.length);
      const shared = longer.length === 0 || (members.length - 1) * (end - depth) >= worth;
      const node =
        shared || ended.length > 0
          ? builder.add(first.slice(depth, end), parent, false, parent < 0 ? adapter : undefined)
          : parent;
      for (const member of ended) onEnd(member, node);
      if (longer.length === 0) continue;
      pending.push({ members: longer, depth: shared ? end : depth, probe: end, parent: shared ? node : parent });
    }
  }
}

/** Runs of members (sorted) that agree in the token at `depth`. */
function splitByToken(sequences: readonly (readonly number[])[], members: number[], depth: number): number[][] {
  const runs: number[][] = [];
  let last: number | undefined;
  for (const member of members) {
    const token = (sequences[member] as readonly number[])[depth];
    if (runs.length === 0 || token !== last) runs.push([]);
    (runs[runs.length - 1] as number[]).push(member);
    last = token;
  }
  return runs;
}

/** Tokens that all members share from the start. They are sorted: the first and the last differ earliest. */
function commonLength(sequences: readonly (readonly number[])[], members: readonly number[]): number {
  const first = sequences[members[0] as number] as readonly number[];
  const last = sequences[members[members.length - 1] as number] as readonly number[];
  const shortest = Math.min(first.length, last.length);
  let length = 0;
  while (length < shortest && first[length] === last[length]) length++;
  return length;
}

function compare(a: readonly number[], b: readonly number[]): number {
  const shortest = Math.min(a.length, b.length);
  for (let i = 0; i < shortest; i++) {
    if (a[i] !== b[i]) return (a[i] as number) - (b[i] as number);
  }
  return a.length - b.length;
}
