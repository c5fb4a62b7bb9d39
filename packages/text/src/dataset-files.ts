import { existsSync } from "node:fs";
import { glob, open, readdir, stat } from "node:fs/promises";
import { basename, dirname, join, relative } from "node:path";
import { fileError, TemporaError } from "@tempora/errors";

/** Endings of the files that hold rows. */
export const dataEndings = [".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet"] as const;
export type DataEnding = (typeof dataEndings)[number];

/** Files of Hugging Face's `datasets` that describe a dataset and hold no rows. */
const descriptions = ["dataset_info.json", "dataset_infos.json", "state.json", "dataset_dict.json"];

/** "rows.jsonl.gz" → ".jsonl", zipped; null for an ending that Tempora does not read. */
export function dataEnding(file: string): { ending: DataEnding; zipped: boolean } | null {
  const name = file.toLowerCase();
  const zipped = name.endsWith(".gz");
  const ending = dataEndings.find((one) => (zipped ? name.slice(0, -3) : name).endsWith(one));
  return ending === undefined || (zipped && ending === ".parquet") ? null : { ending, zipped };
}

/**
 * The files of a dataset in the order of their names: the file itself, all shards of a folder (such as
 * data/train-00000-of-00003.parquet), or what a pattern matches.
 * @throws TemporaError for a missing path, a folder that holds several splits, formats or datasets, a missing shard.
 */
export async function datasetFiles(path: string): Promise<string[]> {
  if (!existsSync(path) && /[*?[{]/.test(path)) return matching(path);
  try {
    if ((await stat(path)).isDirectory()) return await filesIn(path);
    // Opened as well, for a file that is there but may not be read.
    await (await open(path, "r")).close();
    return [path];
  } catch (error) {
    throw fileError(error, "Cannot read the dataset", path);
  }
}

async function matching(pattern: string): Promise<string[]> {
  const files: string[] = [];
  for await (const file of glob(pattern)) {
    if ((await stat(file)).isFile()) files.push(file);
  }
  if (files.length > 0) return files.sort();
  throw new TemporaError("No file matches the pattern", {
    where: { file: pattern },
    remedy: "Check the pattern; quote it, so that the shell leaves it as it is.",
  });
}

async function filesIn(folder: string): Promise<string[]> {
  const names = (await readdir(folder, { recursive: true })).filter((name) => !/(^|\/)\./.test(name)).sort();
  const found = names.filter((name) => dataEnding(name) !== null && !descriptions.includes(basename(name)));
  if (found.length === 0) {
    const arrow = names.some((name) => name.endsWith(".arrow"));
    throw new TemporaError("The folder holds no rows that Tempora reads", {
      where: { file: folder },
      remedy: arrow
        ? "It was written by save_to_disk: write it by to_parquet or to_json instead."
        : `Name a folder of ${dataEndings.join(", ")} files.`,
    });
  }
  const where = { file: folder };
  const ending = (name: string) => dataEnding(name)?.ending as string;
  one([...new Set(found.map((name) => dirname(name)))], "several datasets, in the folders", where, (sub) => {
    // Naming the folder again would mean all of them again.
    const own = found.find((name) => dirname(name) === ".");
    return sub === "." && own !== undefined ? join(folder, `*${ending(own)}`) : join(folder, sub);
  });
  one([...new Set(found.map(ending))], "files of several formats", where, (format) => join(folder, `*${format}`));
  const example = (split: string) => join(folder, dirname(found[0] as string), `${split}*`);
  one([...new Set(found.map(splitOf))], "several splits", where, example);
  checkShards(found, folder);
  return found.map((name) => join(folder, name));
}

/** Refuses a folder that can be read in several ways, naming them. */
function one(
  readings: readonly string[],
  what: string,
  where: { file: string },
  path: (reading: string) => string,
): void {
  if (readings.length === 1) return;
  throw new TemporaError(`The folder holds ${what}: ${readings.map((name) => name || "(others)").join(", ")}`, {
    where,
    remedy: `Name the one that is meant, as ${relative(".", path(readings[0] as string))}.`,
  });
}

/** "train" of "data/train-00000-of-00003.parquet", as `datasets` finds splits by the names of files; "" for none. */
function splitOf(name: string): string {
  const words = ["train", "validation", "valid", "val", "dev", "test", "testing", "eval", "evaluation"];
  return (
    basename(name)
      .toLowerCase()
      .split(/[^a-z]+/)
      .find((word) => words.includes(word)) ?? ""
  );
}

/** Shards say how many they are. */
function checkShards(names: readonly string[], folder: string): void {
  const shards = names.flatMap((name) => {
    const [, stem, index, count] = /^(.*)-(\d{5})-of-(\d{5})\.[^/]*$/.exec(name) ?? [];
    return stem === undefined ? [] : [{ name, stem, index: Number(index), count: Number(count) }];
  });
  for (const { name, stem, count } of shards) {
    const there = new Set(shards.filter((one) => one.stem === stem && one.count === count).map(({ index }) => index));
    for (let index = 0; index < count; index++) {
      if (there.has(index)) continue;
      const missing = name.replace(/-\d{5}-of-/, `-${String(index).padStart(5, "0")}-of-`);
      throw new TemporaError(`The shard ${missing} is missing: ${there.size} of ${count} are there`, {
        where: { file: folder },
        remedy: "Fetch it again; to read without it, name the others by a pattern.",
      });
    }
  }
}
