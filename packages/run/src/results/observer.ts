import type { Conversation } from "@tempora/text";
import type { EventRow, StrategyResult } from "./results.ts";

export interface StageInfo {
  /** Unique within the run. */
  id: string;
  /** For people, e.g. "temporal 1 · candidates of M0". */
  label: string;
  /** How much there is to do, in `unit`; 0 when it cannot be known beforehand. */
  total: number;
  /** "answers", "judgements", "steps", "rows", ... */
  unit: string;
}

/** An answer that has just been sampled. */
export interface SampledAnswer {
  model: string;
  prompt: Conversation;
  text: string;
}

/** What a run tells its watcher. Every method may be called often; none may throw. */
export interface Observer {
  begin(stage: StageInfo): void;
  /** `done` in the stage's unit; `extra` are figures worth showing, e.g. { loss: 0.61, "tokens/s": 2100 }. */
  progress(id: string, done: number, extra?: Readonly<Record<string, number>>): void;
  sampled(id: string, answer: SampledAnswer): void;
  /** reused: the result was in the store already. */
  finish(id: string, outcome: { reused: boolean; seconds: number }): void;
  note(text: string): void;
  /** A line of events.jsonl. `run` is the run's folder: of a study's runs, one observer is told. */
  event(run: string, row: EventRow): void;
  /** A strategy has another model, the last of its `models`, with its figures on the held-out prompts. */
  evaluated(run: string, strategy: StrategyResult): void;
}

export const silentObserver: Observer = {
  begin() {},
  progress() {},
  sampled() {},
  finish() {},
  note() {},
  event() {},
  evaluated() {},
};

/** Passes everything on: for observers that add something. */
export class ForwardingObserver implements Observer {
  constructor(private readonly next: Observer) {}

  begin(stage: StageInfo): void {
    this.next.begin(stage);
  }

  progress(id: string, done: number, extra?: Readonly<Record<string, number>>): void {
    this.next.progress(id, done, extra);
  }

  sampled(id: string, answer: SampledAnswer): void {
    this.next.sampled(id, answer);
  }

  finish(id: string, outcome: { reused: boolean; seconds: number }): void {
    this.next.finish(id, outcome);
  }

  note(text: string): void {
    this.next.note(text);
  }

  event(run: string, row: EventRow): void {
    this.next.event(run, row);
  }

  evaluated(run: string, strategy: StrategyResult): void {
    this.next.evaluated(run, strategy);
  }
}
