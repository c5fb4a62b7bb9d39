import { readdir, stat, statfs } from "node:fs/promises";
import { join } from "node:path";
import { parameterShapes } from "@tempora/engine";
import { TemporaError } from "@tempora/errors";
import { openCheckpoint } from "@tempora/models";
import { strategies } from "@tempora/preferences";
import { countParameters } from "../results/ledger.ts";
import type { Settings } from "../settings/settings.ts";
import type { TaskSource } from "../sources/source.ts";
import { storeOf } from "../store/inventory.ts";
import { gibibytes } from "./gibibytes.ts";
import { plannedAdapter } from "./memory-plan.ts";
import { trainedParameters } from "./plan.ts";

/** Kinds of stages whose folders hold models. */
const modelStages = ["preference-training", "supervised-training", "unpacked-model"];

/** Of the disk of a folder, or of the working folder where it does not exist yet. */
export async function freeBytes(folder: string): Promise<number | null> {
  for (const path of [folder, "."]) {
    try {
      const { bavail, bsize } = await statfs(path);
      return bavail * bsize;
    } catch {
      // Not there yet.
    }
  }
  return null;
}

/**
 * Refuses a run whose models the disk cannot hold: those of its first strategy in the store and in the run's folder, and the state of
 * one training. Models that the store has already, of whatever run, are taken for this one's; rows are not counted.
 * @throws TemporaError
 */
export async function requireRunDisk(
  settings: Settings,
  { start }: TaskSource,
  { runs, free }: { runs: string; free: number | null },
): Promise<void> {
  if (free === null) return;
  const opened =
    start.kind === "new"
      ? { ...start, dtype: "f32" as const, format: "huggingface" }
      : await openCheckpoint(start.folder);
  const adapter = await plannedAdapter(settings);
  const whole =
    countParameters(parameterShapes(opened.config)) * ((settings.engine.dtype ?? opened.dtype) === "f32" ? 4 : 2);
  const trained = trainedParameters(opened.config, adapter);
  const model = adapter === null ? whole : 4 * trained;
  const { iterations, strategy } = settings;
  const stored = iterations * strategies[strategy].phases.length * model;
  const begun = (start.kind === "new" || start.data !== null ? 1 : 0) + (opened.format === "gguf" ? 1 : 0);
  // M0 and every next model lie in the run's folder too; a file system that shares blocks needs less.
  const all = stored + begun * whole + whole + iterations * model;
  const state = adapter === null ? whole + 8 * trained : 12 * trained;
  const needed = all + state - (await storedModels(storeOf(runs)));
  if (needed <= free) return;
  throw new TemporaError(`The run's models need about ${gibibytes(needed)} of disk, ${gibibytes(free)} are free`, {
    where: { file: runs },
    remedy:
      "Make room (`tempora clean` removes what no run needs), name a folder on another disk by --runs, train fewer iterations, or adapters: --lora-rank 16.",
  });
}

async function storedModels(store: string): Promise<number> {
  let sum = 0;
  for (const kind of modelStages) {
    const entries = await readdir(join(store, kind), { recursive: true, withFileTypes: true }).catch(() => []);
    for (const entry of entries) {
      if (entry.isFile() && entry.name.endsWith(".safetensors")) {
        sum += await stat(join(entry.parentPath, entry.name)).then(
          ({ size }) => size,
          () => 0,
        );
      }
    }
  }
  return sum;
}
