import { ForestBuilder, type PreferencePair } from "@tempora/engine";
import { readSafetensors } from "@tempora/models";
import { oracle, readJson, readLines } from "@tempora/testing";

export function oracleJson<T>(name: string): T {
  return readJson<T>(oracle(name));
}

export function oracleRows<T>(name: string): T[] {
  return readLines<T>(oracle(name));
}

/** A row of an oracle's logprobs.jsonl. */
export interface ScoredPair {
  prompt_ids: number[];
  chosen_ids: number[];
  chosen_logprobs: number[];
  chosen_sum: number;
  chosen_reference_sum: number;
  rejected_ids: number[];
  rejected_logprobs: number[];
  rejected_sum: number;
  rejected_reference_sum: number;
}

/** Pairs as a forest, the prompt shared by chosen and rejected. */
export function pairForest(rows: readonly ScoredPair[]) {
  const builder = new ForestBuilder();
  const pairs: PreferencePair[] = rows.map((row) => {
    const prompt = builder.share(row.prompt_ids);
    return {
      chosen: builder.add(row.chosen_ids, prompt),
      rejected: builder.add(row.rejected_ids, prompt),
      referenceChosen: row.chosen_reference_sum,
      referenceRejected: row.rejected_reference_sum,
    };
  });
  return { forest: builder.build(), pairs };
}

/** Every tensor of an f32 safetensors file. */
export async function oracleTensors(name: string): Promise<Map<string, Float32Array>> {
  const { tensors } = await readSafetensors(oracle(name));
  const values = new Map<string, Float32Array>();
  for (const tensor of tensors.values()) {
    if (tensor.dtype !== "F32") throw new Error(`${name}: ${tensor.name} is ${tensor.dtype}, not F32`);
    values.set(tensor.name, new Float32Array(Uint8Array.from(await tensor.read()).buffer));
  }
  return values;
}

/** ‖a − b‖ / ‖b‖ */
export function relativeError(a: ArrayLike<number>, b: ArrayLike<number>): number {
  if (a.length !== b.length) throw new Error(`${a.length} values against ${b.length}`);
  let difference = 0;
  let norm = 0;
  for (let i = 0; i < b.length; i++) {
    difference += ((a[i] as number) - (b[i] as number)) ** 2;
    norm += (b[i] as number) ** 2;
  }
  return Math.sqrt(difference / norm);
}
