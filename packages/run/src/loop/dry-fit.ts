import { openCheckpoint } from "@tempora/models";
import { Tokenizer } from "@tempora/text";
import type { ModelRef } from "../models/model-ref.ts";
import { silentObserver } from "../results/observer.ts";
import type { Settings } from "../settings/settings.ts";
import type { TaskSource } from "../sources/source.ts";
import { type FitContext, type FittingSource, fittingSource } from "./fitting-source.ts";

/**
 * Looks at the prompts as the run will, before any weights are read: the first one whose answer or judgement has no room
 * is an error, or all of them are left out and counted (skipTooLong). The embedded world's prompts have room.
 */
export async function dryFit(
  settings: Settings,
  source: TaskSource,
  signal: AbortSignal | undefined,
): Promise<FittingSource> {
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
