import type { Json } from "@tempora/errors";
import { dayText, type Tokenizer } from "@tempora/text";
import type { ModelHost } from "../models/model-host.ts";
import type { EventLog } from "../results/event-log.ts";
import type { Observer } from "../results/observer.ts";
import type { Settings } from "../settings/settings.ts";
import type { TaskSource } from "../sources/source.ts";
import { sha256 } from "../store/sealed.ts";
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
  /** Earlier versions of the code whose stages are used. */
  readonly keptCode: readonly string[];
  /** Takes down what is asked for, while a piece of the run is at work whose outcome is kept. */
  readonly record?: OutcomeRecord;
  /** The day that chat templates which ask for the date are told: that of the run's first start, or the settings'. */
  readonly now: Date;
}

/** What a piece of the run asks for and says. */
export interface OutcomeRecord {
  readonly stages: RecordedStage[];
  readonly findings: string[];
}

export interface RecordedStage extends Pick<StagePlan<unknown>, "kind" | "label" | "total" | "unit" | "position"> {
  /** In the store. */
  key: string;
  temporary: boolean;
  /** SHA-256 of its result. */
  result: string;
  /** Of a training: whose steps its metrics are in the events. */
  training?: { phase: number; name: string };
}

/** Says something of the results, which is said again where they are reused. */
export function noteFinding({ observer, record }: RunContext, text: string): void {
  record?.findings.push(text);
  observer.note(text);
}

/** Of a stage's result, which holds the hashes of its files. */
export function hashResult(result: unknown): string {
  return sha256(JSON.stringify(result));
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
  /** Of a training: whose steps its metrics are in the events. */
  training?: RecordedStage["training"];
  /** Called with the stage's folder once its result counts, each time it is asked for: what led to it may go. */
  counts?(folder: string): Promise<void>;
  compute(
    folder: string,
    progress: (done: number, extra?: Record<string, number>) => void,
    id: string,
  ): Promise<Result>;
}

let counter = 0;

/** "temporal 1 · ", before a stage's label. */
function placeOf({ strategy, iteration }: Position): string {
  return strategy === null ? "" : `${strategy} ${iteration} · `;
}

/** Tells observer and events that a stage begins; what is returned tells them that it has ended. */
export function beginStage(
  { observer, events }: RunContext,
  plan: Pick<RecordedStage, "kind" | "label" | "total" | "unit" | "position" | "key">,
): { id: string; end(reused: boolean): void } {
  const { kind, label, total, unit, position } = plan;
  const { strategy, iteration } = position;
  const id = `${kind}-${++counter}`;
  const begun = performance.now();
  const placed = `${placeOf(position)}${label}`;
  observer.begin({ id, label: placed, total, unit });
  events.append({ event: "stage", strategy, iteration, kind, label, key: plan.key.slice(0, 16) });
  return {
    id,
    end: (reused) => {
      const seconds = (performance.now() - begun) / 1000;
      events.time(placed, seconds, reused);
      observer.finish(id, { reused, seconds });
    },
  };
}

/** Runs a stage through the store, tells the observer and the logs. */
export async function runStage<Result>(context: RunContext, plan: StagePlan<Result>): Promise<StageOutcome<Result>> {
  const { observer, signal, record } = context;
  signal?.throwIfAborted();
  const { kind, label, total, unit, position, training, temporary = false } = plan;
  const inputs = { numerics: context.numerics, ...(plan.inputs as Record<string, Json>) };
  const begun = beginStage(context, { kind, label, total, unit, position, key: context.store.key(kind, inputs) });
  const outcome = await context.store.stage<Result>({
    kind,
    label,
    temporary,
    inputs,
    ...(signal === undefined ? {} : { signal }),
    onWait: () => observer.note(`Waiting: another process computes ${label}.`),
    compute: (folder) => plan.compute(folder, (done, extra) => observer.progress(begun.id, done, extra), begun.id),
  });
  await plan.counts?.(outcome.folder);
  begun.end(outcome.reused);
  const { key, result } = outcome;
  const recorded = { kind, key, label, total, unit, position, temporary, result: hashResult(result) };
  record?.stages.push(training === undefined ? recorded : { ...recorded, training });
  return outcome;
}
