import { existsSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { readSafetensors } from "@tempora/models";

/** Numbers made by transformers and TRL, in ../shared/oracles beside the repository. */
export const oracleFolder = fileURLToPath(new URL("../../shared/oracles/", import.meta.url));

export const families = ["llama", "llama3", "qwen2", "qwen3", "mistral"] as const;

function pathOf(name: string): string {
  const file = `${oracleFolder}${name}`;
  if (!existsSync(file)) {
    throw new Error(`The oracle ${file} is missing: put the folder shared/oracles beside the repository's folder.`);
  }
  return file;
}

/** A folder of an oracle, such as a checkpoint. */
export function oraclePath(name: string): string {
  return pathOf(name);
}

export function oracleJson<T>(name: string): T {
  return JSON.parse(readFileSync(pathOf(name), "utf8")) as T;
}

export function oracleRows<T>(name: string): T[] {
  return readFileSync(pathOf(name), "utf8")
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line) as T);
}

/** Every tensor of an f32 safetensors file. */
export async function oracleTensors(name: string): Promise<Map<string, Float32Array>> {
  const { tensors } = await readSafetensors(pathOf(name));
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
