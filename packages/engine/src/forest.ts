import { TemporaError } from "@tempora/errors";

/**
 * A packed batch of token trees. T tokens in N nodes; a token sees its own node up to itself and all of its node's
 * ancestors; its position is its distance from the root. There is no padding.
 */
export interface Forest {
  /** [T] token ids, node after node. */
  readonly tokens: Int32Array;
  /** [N + 1] node n holds tokens [nodeStart[n], nodeStart[n + 1]). */
  readonly nodeStart: Int32Array;
  /** [N] index of an earlier node, or -1 for a root. */
  readonly nodeParent: Int32Array;
  /** [N] 1 where the node's tokens have log-probs computed (responses), 0 where they are only context (prompts). */
  readonly nodeScored: Uint8Array;
  /**
   * [trees] the adapter that each tree goes through, in order of the roots: its name, null for the base alone, undefined for
   * the active one. Left out where all are undefined.
   */
  readonly rootAdapters?: readonly (string | null | undefined)[] | undefined;
}

/** Number of nodes. */
export function nodeCount(forest: Forest): number {
  return forest.nodeParent.length;
}

/** Number of trees. */
export function rootCount(forest: Forest): number {
  return forest.nodeParent.reduce((count, parent) => count + (parent < 0 ? 1 : 0), 0);
}

/** Builds a forest node by node. A node with the same tokens, parent and scoring as an earlier one is that node. */
export class ForestBuilder {
  #chunks: Int32Array[] = [];
  #starts: number[] = [0];
  #parents: number[] = [];
  #scored: number[] = [];
  #ends: number[] = [];
  #rootAdapters: (string | null | undefined)[] = [];
  #known = new Map<string, number>();

  get tokens(): number {
    return this.#starts[this.#starts.length - 1] as number;
  }

  get nodes(): number {
    return this.#parents.length;
  }

  /** Tokens on the path from the root to the end of `node`. */
  pathLength(node: number): number {
    return this.#ends[node] as number;
  }

  /**
   * A node of its own, even when an equal one exists. Returns its index. `adapter`, of roots only: what the tree goes
   * through (Forest.rootAdapters).
   */
  add(tokens: ArrayLike<number>, parent = -1, scored = parent !== -1, adapter?: string | null): number {
    if (tokens.length === 0) {
      throw new TemporaError(`Node ${this.nodes} of a forest has no tokens`, {
        remedy: "Give every node at least one token; an empty prompt or completion cannot be scored.",
      });
    }
    if (parent < -1 || parent >= this.nodes) {
      throw new TemporaError(`Node ${this.nodes} of a forest names parent ${parent}, which does not exist yet`, {
        remedy: "Add parents before their children; -1 makes a root.",
      });
    }
    if (parent !== -1 && adapter !== undefined) {
      throw new TemporaError(`Node ${this.nodes} of a forest names an adapter below a root`, {
        remedy: "Name it at the root: a tree goes through one adapter.",
      });
    }
    if (parent === -1) this.#rootAdapters.push(adapter);
    this.#chunks.push(Int32Array.from(tokens));
    this.#starts.push(this.tokens + tokens.length);
    this.#parents.push(parent);
    this.#scored.push(scored ? 1 : 0);
    this.#ends.push((parent < 0 ? 0 : this.pathLength(parent)) + tokens.length);
    return this.nodes - 1;
  }

  /** The node with these tokens below `parent`: an existing one where there is one. Prompts are shared this way. */
  share(tokens: ArrayLike<number>, parent = -1, scored = parent !== -1, adapter?: string | null): number {
    const through =
      adapter === undefined ? "" : typeof adapter === "string" ? JSON.stringify(adapter) : String(adapter);
    const key = `${parent}:${scored ? 1 : 0}:${through}:${Array.prototype.join.call(tokens, ",")}`;
    const known = this.#known.get(key);
    if (known !== undefined) return known;
    const node = this.add(tokens, parent, scored, adapter);
    this.#known.set(key, node);
    return node;
  }

  build(): Forest {
    const tokens = new Int32Array(this.tokens);
    this.#chunks.forEach((chunk, node) => {
      tokens.set(chunk, this.#starts[node]);
    });
    const named = this.#rootAdapters.some((adapter) => adapter !== undefined);
    return {
      tokens,
      nodeStart: Int32Array.from(this.#starts),
      nodeParent: Int32Array.from(this.#parents),
      nodeScored: Uint8Array.from(this.#scored),
      ...(named ? { rootAdapters: [...this.#rootAdapters] } : {}),
    };
  }
}
