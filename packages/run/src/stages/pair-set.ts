import type { PairIds } from "@tempora/training";
import { ContentHash } from "../store/content-hash.ts";

/** Pairs to train on, with what stages are keyed by. */
export interface PairSet {
  list: readonly PairIds[];
  hash: string;
}

export function pairSet(list: readonly PairIds[]): PairSet {
  const hash = new ContentHash();
  for (const { promptIds, chosenIds, rejectedIds } of list) hash.ids(promptIds).ids(chosenIds).ids(rejectedIds);
  return { list, hash: hash.digest() };
}
