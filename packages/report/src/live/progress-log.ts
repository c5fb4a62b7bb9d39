import type { Observer, StageInfo } from "@tempora/run";

/** A stage as the page shows it. */
export interface ShownStage {
  label: string;
  done: number;
  total: number;
  unit: string;
  /** In seconds; null while it cannot be told. */
  left: number | null;
  /** The stage's own figures, e.g. loss and tokens/s. */
  figures: Record<string, number>;
}

interface OpenStage {
  info: StageInfo;
  done: number;
  /** Where and when its progress was first heard of: what a resumed stage found says nothing about its pace. */
  from: { done: number; at: number } | null;
  figures: Record<string, number>;
}

const notesKept = 20;

/** An observer that remembers what a page wants to show, and passes everything on. */
export class ProgressLog implements Observer {
  readonly #open = new Map<string, OpenStage>();
  readonly #next: Observer;
  readonly #clock: () => number;
  readonly notes: string[] = [];

  constructor(next: Observer, clock = () => performance.now()) {
    this.#next = next;
    this.#clock = clock;
  }

  begin(info: StageInfo): void {
    this.#open.set(info.id, { info, done: 0, from: null, figures: {} });
    this.#next.begin(info);
  }

  progress(id: string, done: number, extra?: Readonly<Record<string, number>>): void {
    const stage = this.#open.get(id);
    if (stage !== undefined) {
      stage.from ??= { done, at: this.#clock() };
      stage.done = done;
      if (extra !== undefined) stage.figures = { ...extra };
    }
    this.#next.progress(id, done, extra);
  }

  finish(id: string, outcome: { reused: boolean; seconds: number }): void {
    this.#open.delete(id);
    this.#next.finish(id, outcome);
  }

  note(text: string): void {
    this.notes.push(text);
    if (this.notes.length > notesKept) this.notes.shift();
    this.#next.note(text);
  }

  stages(): ShownStage[] {
    return [...this.#open.values()].map(({ info, done, from, figures }) => {
      const { label, total, unit } = info;
      const seconds = from === null ? 0 : (this.#clock() - from.at) / 1000;
      const gone = from === null ? 0 : done - from.done;
      const left = gone > 0 && total > done && seconds > 0 ? ((total - done) * seconds) / gone : null;
      return { label, done, total, unit, left, figures };
    });
  }
}
