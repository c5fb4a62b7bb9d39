import type { Json } from "@tempora/errors";
import { dayText, type Tokenizer } from "@tempora/text";
import type { ModelHost } from "../models/model-host.ts";
import type { EventLog } from "../results/event-log.ts";
import type { Observer } from "../results/observer.ts";
import type { Settings } from "../settings/settings.ts";
import type { TaskSource } from "../sources/source.ts";
import type { StageOutcome, Store } from "../store/store.ts";

/** What every stage of a run works with. */
export interface RunContext {
  readonly settings: Settings;
  readonly source: TaskSource;
  readonly store: Store;
  readonly host: ModelHost;
  readonly observer: Observer;
  readonly events: EventLog;
  readonly signal: AbortSignal | undefined;
  /** Device, threads and element type: they decide the last bits of every number. */
  readonly numerics: Json;
  /** The day that chat templates which ask for the date are told: that of the run's first start, or the settings'. */
  readonly now: Date;
}

/** For a stage's key: the date, where the model's template makes it a part of the prompts. */
export function dateFor({ now }: RunContext, { asksForDate }: Tokenizer): string | null {
  return asksForDate ? dayText(now) : null;
}

/** Where in the run a stage stands, for its label and its events. */
export interface Position {
  strategy: string | null;
  iteration: number;
}

export interface StagePlan<Result> {
  kind: string;
  /** "candidates of M1". */
  label: string;
  total: number;
  unit: string;
  inputs: Json;
  position: Position;
  /** Whether the model that the stage makes is needed no more once the run has finished. */
  temporary?: boolean;
  /** Called with the stage's folder once its result counts, each time it is asked for: what led to it may go. */
  counts?(folder: string): Promise<void>;
  compute(
    folder: string,
    progress: (done: number, extra?: Record<string, number>) => void,
    id: string,
  ): Promise<Result>;
}

let counter = 0;

/** Runs a stage through the store, tells the observer and the logs. */
export async function runStage<Result>(context: RunContext, plan: StagePlan<Result>): Promise<StageOutcome<Result>> {
  const { observer, events, signal } = context;
  signal?.throwIfAborted();
  const id = `${plan.kind}-${++counter}`;
  const { strategy, iteration } = plan.position;
  const place = strategy === null ? "" : `${strategy} ${iteration} · `;
  const begun = performance.now();
  const inputs = { numerics: context.numerics, ...(plan.inputs as Record<string, Json>) };
  const key = context.store.key(plan.kind, inputs).slice(0, 16);
  observer.begin({ id, label: `${place}${plan.label}`, total: plan.total, unit: plan.unit });
  events.append({ event: "stage", strategy, iteration, kind: plan.kind, label: plan.label, key });
  const outcome = await context.store.stage<Result>({
    kind: plan.kind,
    label: plan.label,
    temporary: plan.temporary ?? false,
    inputs,
    ...(signal === undefined ? {} : { signal }),
    onWait: () => observer.note(`Waiting: another process computes ${plan.label}.`),
    compute: (folder) => plan.compute(folder, (done, extra) => observer.progress(id, done, extra), id),
  });
  await plan.counts?.(outcome.folder);
  const seconds = (performance.now() - begun) / 1000;
  events.time(`${place}${plan.label}`, seconds, outcome.reused);
  observer.finish(id, { reused: outcome.reused, seconds });
  return outcome;
}
