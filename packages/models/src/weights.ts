import { existsSync } from "node:fs";
import { basename, join } from "node:path";
import { isObject, TemporaError } from "@tempora/errors";
import { readJsonObject } from "./json-file.ts";
import { readSafetensors, type SafetensorsTensor } from "./safetensors.ts";

export const singleFile = "model.safetensors";
export const indexFile = "model.safetensors.index.json";

export function hasSafetensors(folder: string): boolean {
  return existsSync(join(folder, singleFile)) || existsSync(join(folder, indexFile));
}

/** Every tensor of a checkpoint folder by name, from its one file or from all shards of its index. */
export async function readWeights(folder: string): Promise<ReadonlyMap<string, SafetensorsTensor>> {
  // In this order, as transformers looks for them.
  if (existsSync(join(folder, singleFile))) return (await readSafetensors(join(folder, singleFile))).tensors;
  if (existsSync(join(folder, indexFile))) return readShards(folder);
  const pickled =
    existsSync(join(folder, "pytorch_model.bin")) || existsSync(join(folder, "pytorch_model.bin.index.json"));
  throw new TemporaError(`The folder has neither ${singleFile} nor ${indexFile}`, {
    where: { file: folder },
    remedy: pickled
      ? "Its weights are pickled: open it in transformers and save_pretrained it again."
      : "Name the folder of a whole checkpoint.",
  });
}

/** Names of the files that the index of a folder names. */
export async function shardsOf(folder: string): Promise<string[]> {
  const file = join(folder, indexFile);
  return [...new Set(weightMap(await readJsonObject(file, "the index of the weights"), file).values())];
}

async function readShards(folder: string): Promise<ReadonlyMap<string, SafetensorsTensor>> {
  const file = join(folder, indexFile);
  const index = await readJsonObject(file, "the index of the weights");
  const shardOf = weightMap(index, file);
  const tensors = new Map<string, SafetensorsTensor>();
  for (const shard of new Set(shardOf.values())) {
    const path = join(folder, shard);
    if (!existsSync(path)) {
      const first = [...shardOf].find(([, owner]) => owner === shard)?.[0];
      throw new TemporaError(`The shard ${shard} is missing; it holds ${first} among others`, {
        where: { file: path },
        remedy: `Fetch it again: ${indexFile} names it.`,
      });
    }
    for (const [name, tensor] of (await readSafetensors(path)).tensors) {
      if (shardOf.get(name) !== shard) throw misplaced(name, path, shardOf.get(name));
      tensors.set(name, tensor);
    }
  }
  for (const [name, shard] of shardOf) {
    if (!tensors.has(name)) {
      throw new TemporaError(`${indexFile} puts this tensor into ${shard}, which lacks it`, {
        where: { file: join(folder, shard), field: name },
        remedy: "Fetch the index and its shards again: they belong to different checkpoints.",
      });
    }
  }
  return tensors;
}

function misplaced(name: string, path: string, owner: string | undefined): TemporaError {
  const claim = owner === undefined ? "does not list it" : `puts it into ${owner}`;
  return new TemporaError(`This tensor lies in ${basename(path)}, but ${indexFile} ${claim}`, {
    where: { file: path, field: name },
    remedy: "Fetch the index and its shards again: they belong to different checkpoints.",
  });
}

function weightMap(index: Record<string, unknown>, file: string): Map<string, string> {
  const map = index.weight_map;
  if (!isObject(map) || Object.keys(map).length === 0) {
    throw new TemporaError("The index has no weight_map", {
      where: { file, field: "weight_map" },
      remedy: "Fetch or write the file again.",
    });
  }
  return new Map(
    Object.entries(map).map(([name, shard]) => {
      // A shard is a file of this very folder, never a path that leads out of it.
      if (typeof shard !== "string" || shard !== basename(shard) || shard === "") {
        throw new TemporaError(`Not the name of a shard: ${JSON.stringify(shard)}`, {
          where: { file, field: name },
          remedy: "Fetch or write the file again.",
        });
      }
      return [name, shard] as const;
    }),
  );
}
