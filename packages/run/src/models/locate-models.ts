import { locateModel } from "@tempora/models";
import type { Observer } from "../results/observer.ts";
import type { Settings } from "../settings/settings.ts";

/**
 * The settings with the paths of their models: what they name on the hub is downloaded where the cache lacks it. A download
 * is no stage: it decides nothing, for a model counts by its content.
 */
export async function locateModels(
  settings: Settings,
  observer: Observer,
  signal: AbortSignal | undefined,
): Promise<Settings> {
  const { model, judge } = settings;
  return {
    ...settings,
    model: model === null ? null : await locate(model, observer, signal),
    judge: { ...judge, model: judge.model === null ? null : await locate(judge.model, observer, signal) },
  };
}

async function locate(name: string, observer: Observer, signal: AbortSignal | undefined): Promise<string> {
  const id = `download ${name}`;
  const began = performance.now();
  let begun = false;
  const path = await locateModel(name, {
    signal,
    note: (text) => observer.note(text),
    onProgress: (done, total) => {
      if (!begun) observer.begin({ id, label: id, total, unit: "bytes" });
      begun = true;
      observer.progress(id, done);
    },
  });
  if (begun) observer.finish(id, { reused: false, seconds: (performance.now() - began) / 1000 });
  return path;
}
