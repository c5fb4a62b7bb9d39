import { openCheckpoint } from "@tempora/models";
import { Tokenizer } from "@tempora/text";
import { locateModels } from "../models/locate-models.ts";
import type { ModelRef } from "../models/model-ref.ts";
import { type Observer, silentObserver } from "../results/observer.ts";
import type { LeftOut } from "../results/results.ts";
import type { Settings } from "../settings/settings.ts";
import { fileSource } from "../sources/files.ts";
import { type FitContext, fittingSource } from "./fitting-source.ts";

/**
 * Looks at the prompts as the run will, before any weights are read: the first one whose answer or judgement has no room
 * is an error, or all of them are counted (skipTooLong). The embedded world's prompts have room.
 */
export async function dryFit(
  given: Settings,
  observer: Observer,
  signal: AbortSignal | undefined,
): Promise<LeftOut | null> {
  const settings = await locateModels(given, observer, signal);
  const { model, judge } = settings;
  if (model === null) return null;
  const context: FitContext = {
    settings,
    // What is said of the rows, the estimate says.
    source: await fileSource(settings, () => undefined),
    observer: silentObserver,
    signal,
    now: settings.date === null ? new Date() : new Date(settings.date),
    host: { open: opened, use: () => Promise.reject(new TypeError("a dry run loads no model")) },
  };
  const first = refOf("M0", model);
  const external = judge.role === "external" && judge.model !== null ? refOf("judge", judge.model) : first;
  return (await fittingSource(context, first, external)).leftOut;
}

/** Named by its place: hashing gigabytes would take longer than looking at the prompts. */
function refOf(name: string, folder: string): ModelRef {
  return { name, folder, hash: folder, base: null };
}

async function opened({ folder }: ModelRef) {
  const checkpoint = await openCheckpoint(folder);
  return { checkpoint, tokenizer: await Tokenizer.from(checkpoint.path, checkpoint.companion) };
}
