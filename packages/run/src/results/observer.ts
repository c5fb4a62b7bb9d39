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

/** What a run tells its watcher. Every method may be called often; none may throw. */
export interface Observer {
  begin(stage: StageInfo): void;
  /** `done` in the stage's unit; `extra` are figures worth showing, e.g. { loss: 0.61, "tokens/s": 2100 }. */
  progress(id: string, done: number, extra?: Readonly<Record<string, number>>): void;
  /** reused: the result was in the store already. */
  finish(id: string, outcome: { reused: boolean; seconds: number }): void;
  note(text: string): void;
}

export const silentObserver: Observer = {
  begin() {},
  progress() {},
  finish() {},
  note() {},
};
