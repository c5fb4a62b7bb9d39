import { openCheckpoint } from "@tempora/models";
import { Tokenizer } from "@tempora/text";
import { estimateRun, type RunEstimate } from "../estimate/estimate-run.ts";
import { locateModels } from "../models/locate-models.ts";
import type { ModelRef } from "../models/model-ref.ts";
import { type Observer, silentObserver } from "../results/observer.ts";
import type { LeftOut } from "../results/results.ts";
import type { Settings } from "../settings/settings.ts";
import { fileSource } from "../sources/files.ts";
import type { TaskSource } from "../sources/source.ts";
import { worldSource } from "../sources/world.ts";
import { type FitContext, type FittingSource, fittingSource } from "./fitting-source.ts";

export interface DryRunOptions {
  settings: Settings;
  /** Folder of all runs: only its disk is looked at. */
  runs: string;
  observer: Observer;
  signal: AbortSignal | undefined;
}

/** leftOut: null where all prompts have room. */
export type DryRun = RunEstimate & { leftOut: LeftOut | null };

/**
 * What a run would take, of the prompts that it would answer. Nothing is written but what the cache of the hub takes of a model
 * that it lacks.
 * @throws TemporaError for a prompt without room, unless such are to be left out.
 */
export async function dryRun({ runs, observer, signal, ...options }: DryRunOptions): Promise<DryRun> {
  const settings = await locateModels(options.settings, observer, signal);
  const note = (text: string) => observer.note(text);
  const whole = settings.model === null ? worldSource(settings) : await fileSource(settings, note);
  const { source, leftOut } = await dryFit(settings, whole, signal);
  return { ...(await estimateRun({ settings, source, runs, signal })), leftOut };
}

/**
 * Looks at the prompts as the run will, before any weights are read: the first one whose answer or judgement has no room
 * is an error, or all of them are left out and counted (skipTooLong). The embedded world's prompts have room.
 */
async function dryFit(settings: Settings, source: TaskSource, signal: AbortSignal | undefined): Promise<FittingSource> {
  const { model, judge } = settings;
  if (model === null) return { source, leftOut: null };
  const context: FitContext = {
    settings,
    source,
    observer: silentObserver,
    signal,
    now: settings.date === null ? new Date() : new Date(settings.date),
    host: { open: opened, use: () => Promise.reject(new TypeError("a dry run loads no model")) },
  };
  const first = refOf("M0", model);
  const external = judge.role === "external" && judge.model !== null ? refOf("judge", judge.model) : first;
  return fittingSource(context, first, external);
}

/** Named by its place: hashing gigabytes would take longer than looking at the prompts. */
function refOf(name: string, folder: string): ModelRef {
  return { name, folder, hash: folder, base: null };
}

async function opened({ folder }: ModelRef) {
  const checkpoint = await openCheckpoint(folder);
  return { checkpoint, tokenizer: await Tokenizer.from(checkpoint.path, checkpoint.companion) };
}
