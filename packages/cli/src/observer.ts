import { type Observer, type StageInfo, silentObserver } from "@tempora/run";
import { formatCount } from "./format.ts";
import type { Progress, StageProgress } from "./progress.ts";

/** Shows a run's stages: what was in the store is said in one line, what is computed has a bar. */
export function runObserver(progress: Progress): Observer {
  const shown = new Map<string, { info: StageInfo; began: number; stage: StageProgress | null; last: string }>();
  return {
    ...silentObserver,
    begin(info) {
      shown.set(info.id, { info, began: performance.now(), stage: null, last: "" });
    },
    progress(id, done, extra) {
      const entry = shown.get(id);
      if (entry === undefined) return;
      // The bar comes with the first progress: a stage found in the store never has any.
      const { label, total, unit } = entry.info;
      entry.stage ??= progress.stage(label, total, unit, entry.began);
      if (extra !== undefined) entry.last = figures(extra);
      entry.stage.update(done, entry.last);
    },
    finish(id, { reused }) {
      const entry = shown.get(id);
      if (entry === undefined) return;
      shown.delete(id);
      if (entry.stage !== null) entry.stage.finish();
      else progress.note(`${entry.info.label}: ${reused ? "reused" : "done"}`);
    },
    note(text) {
      progress.note(text);
    },
  };
}

/** "loss 0.61 · 2100 tokens/s" */
function figures(extra: Readonly<Record<string, number>>): string {
  return Object.entries(extra)
    .map(([name, value]) => (name.includes("/s") ? `${formatCount(value)} ${name}` : `${name} ${formatFigure(value)}`))
    .join(" · ");
}

function formatFigure(value: number): string {
  return Number.isInteger(value) ? formatCount(value) : value.toPrecision(3);
}
