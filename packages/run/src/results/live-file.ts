import { renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { shownText } from "@tempora/text";
import { ForwardingObserver, type Observer, type SampledAnswer, type StageInfo } from "./observer.ts";

/** live.json: what a run does at this moment. It is there while the run goes on, and stays behind where it was killed. */
export interface LiveState {
  /** When it was written, in milliseconds since 1970. */
  at: number;
  stages: LiveStage[];
  /** What the run said last. */
  notes: string[];
  /** Of its process, in bytes. */
  memory: number;
  /** Sampled last, the newest first. */
  answers: { model: string; prompt: string; text: string }[];
}

export interface LiveStage {
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

export const liveFileName = "live.json";

const [answersKept, lettersKept] = [4, 1500];

export interface LiveOptions {
  /** Milliseconds between two writes; so often it is written even where nothing is new, to say that the run lives. */
  interval?: number;
  clock?: () => number;
}

/** Keeps live.json in a run's folder true, and passes everything on. */
export class LiveFile extends ForwardingObserver implements Disposable {
  readonly #file: string;
  readonly #clock: () => number;
  readonly #timer: NodeJS.Timeout;
  readonly #open = new Map<string, OpenStage>();
  #answers: SampledAnswer[] = [];
  #notes: string[] = [];
  #failed = false;

  constructor(folder: string, next: Observer, { interval = 1000, clock = () => performance.now() }: LiveOptions = {}) {
    super(next);
    this.#file = join(folder, liveFileName);
    this.#clock = clock;
    this.#timer = setInterval(() => this.#write(), interval);
    this.#timer.unref();
    this.#write();
  }

  override begin(info: StageInfo): void {
    this.#open.set(info.id, { info, done: 0, from: null, figures: {} });
    super.begin(info);
  }

  override progress(id: string, done: number, extra?: Readonly<Record<string, number>>): void {
    const stage = this.#open.get(id);
    if (stage !== undefined) {
      stage.from ??= { done, at: this.#clock() };
      stage.done = done;
      if (extra !== undefined) stage.figures = { ...extra };
    }
    super.progress(id, done, extra);
  }

  override sampled(id: string, answer: SampledAnswer): void {
    this.#answers = [answer, ...this.#answers.slice(0, answersKept - 1)];
    super.sampled(id, answer);
  }

  override finish(id: string, outcome: { reused: boolean; seconds: number }): void {
    this.#open.delete(id);
    super.finish(id, outcome);
  }

  override note(text: string): void {
    this.#notes = [text];
    super.note(text);
  }

  state(): LiveState {
    return {
      at: Date.now(),
      stages: [...this.#open.values()].map((stage) => this.#shown(stage)),
      notes: this.#notes,
      memory: process.memoryUsage.rss(),
      answers: this.#answers.map(({ model, prompt, text }) => ({
        model,
        prompt: shortened(shownText(prompt)),
        text: shortened(text),
      })),
    };
  }

  #shown({ info, done, from, figures }: OpenStage): LiveStage {
    const { label, total, unit } = info;
    const seconds = from === null ? 0 : (this.#clock() - from.at) / 1000;
    const gone = from === null ? 0 : done - from.done;
    const left = gone > 0 && total > done && seconds > 0 ? ((total - done) * seconds) / gone : null;
    return { label, done, total, unit, left, figures };
  }

  /** Whole or not at all, and at once, so that nothing is written behind the file's removal. */
  #write(): void {
    try {
      writeFileSync(`${this.#file}.new`, JSON.stringify(this.state()));
      renameSync(`${this.#file}.new`, this.#file);
    } catch (error) {
      // The run's own files say what is wrong with the disk; what is only for watching does not end it.
      if (!this.#failed) super.note(`${this.#file} cannot be written: ${String(error)}`);
      this.#failed = true;
    }
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
    for (const file of [this.#file, `${this.#file}.new`]) rmSync(file, { force: true });
  }
}

const shortened = (text: string) => (text.length > lettersKept ? `${text.slice(0, lettersKept)} …` : text);
