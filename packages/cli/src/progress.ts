import cliProgress from "cli-progress";
import { formatCount, formatDuration } from "./format.ts";

/** Plain output, without a terminal, says something this often. */
const plainInterval = 10_000;

/** What a stage tells so soon after its beginning, it has not just done. */
const atOnce = 100;

/** One long piece of work: a bar on a terminal, a line now and then without one. */
export interface StageProgress {
  /** `done` counts from the start of the stage; extra is shown behind the rate, for example a loss. */
  update(done: number, extra?: string): void;
  finish(note?: string): void;
}

/** Shows what goes on, with rates and remaining time. One stage at a time. */
export class Progress {
  readonly #stream: NodeJS.WriteStream;
  #active: Stage | null = null;

  constructor(stream: NodeJS.WriteStream) {
    this.#stream = stream;
  }

  /**
   * @param unit in the plural
   * @param began when the work began, on the clock of `performance`, where that was before its first progress
   */
  stage(label: string, total: number, unit: string, began = performance.now()): StageProgress {
    this.clear();
    const stage = this.#stream.isTTY
      ? new BarStage(this.#stream, label, total, unit, began)
      : new PlainStage(this.#stream, label, total, unit, began);
    this.#active = stage;
    return {
      update: (done, extra = "") => stage.update(done, extra),
      finish: (note = "") => {
        if (this.#active === stage) this.#active = null;
        stage.finish(note);
      },
    };
  }

  /** A line of its own, above the bar if there is one. */
  note(text: string): void {
    this.#active?.pause();
    this.#stream.write(`${text}\n`);
    this.#active?.resume();
  }

  /** Takes an unfinished bar off the screen. */
  clear(): void {
    this.#active?.pause();
    this.#active = null;
  }
}

abstract class Stage {
  protected done = 0;
  protected extra = "";
  readonly #shown = performance.now();
  /** Work that was there when the stage was resumed says nothing about the rate. */
  #found: number | null = null;

  constructor(
    protected readonly stream: NodeJS.WriteStream,
    protected readonly label: string,
    protected readonly total: number,
    protected readonly unit: string,
    protected readonly began: number,
  ) {}

  update(done: number, extra: string): void {
    this.#found ??= performance.now() - this.#shown < atOnce ? done : 0;
    this.done = done;
    this.extra = extra;
    this.show();
  }

  finish(note: string): void {
    this.pause();
    const seconds = (performance.now() - this.began) / 1000;
    const unit = this.total === 1 ? this.unit.replace(/s$/, "") : this.unit;
    const work = this.total > 0 ? ` ${formatCount(this.total)} ${unit}` : "";
    const what = note === "" ? `${work} in ${formatDuration(seconds)}${this.#rateText()}` : ` ${note}`;
    this.stream.write(`${this.label}:${what}${this.extra && note === "" ? ` · ${this.extra}` : ""}\n`);
  }

  /** "120/400 rows · 31 rows/s · 9 s left · loss 0.61" */
  protected describe(): string {
    const parts = [`${formatCount(this.done)}/${formatCount(this.total)} ${this.unit}`];
    const rate = this.#rate();
    if (rate > 0) {
      parts.push(`${formatCount(rate)} ${this.unit}/s`);
      if (this.total > this.done) parts.push(`${formatDuration((this.total - this.done) / rate)} left`);
    } else {
      parts.push(`${formatDuration((performance.now() - this.began) / 1000)} so far`);
    }
    if (this.extra) parts.push(this.extra);
    return parts.join(" · ");
  }

  #rate(): number {
    const seconds = (performance.now() - this.#shown) / 1000;
    return seconds > 0 ? (this.done - (this.#found ?? 0)) / seconds : 0;
  }

  #rateText(): string {
    const rate = this.#rate();
    return rate > 0 ? ` (${formatCount(rate)} ${this.unit}/s)` : "";
  }

  protected abstract show(): void;
  abstract pause(): void;
  abstract resume(): void;
}

class BarStage extends Stage {
  #bar: cliProgress.SingleBar | null = null;

  constructor(stream: NodeJS.WriteStream, label: string, total: number, unit: string, began: number) {
    super(stream, label, total, unit, began);
    this.resume();
  }

  protected show(): void {
    this.#bar?.update(this.done);
  }

  pause(): void {
    this.#bar?.stop();
    this.#bar = null;
  }

  resume(): void {
    this.#bar = new cliProgress.SingleBar({
      stream: this.stream,
      clearOnComplete: true,
      hideCursor: true,
      barsize: 24,
      barCompleteChar: "█",
      barIncompleteChar: "░",
      fps: 5,
      linewrap: false,
      format: (options, params) =>
        `${this.label} ${cliProgress.Format.BarFormat(params.progress, options)} ${this.describe()}`,
    });
    this.#bar.start(Math.max(1, this.total), this.done);
  }
}

class PlainStage extends Stage {
  #said = performance.now();
  #timer: NodeJS.Timeout | null = null;

  constructor(stream: NodeJS.WriteStream, label: string, total: number, unit: string, began: number) {
    super(stream, label, total, unit, began);
    this.resume();
  }

  protected show(): void {
    if (performance.now() - this.#said < plainInterval) return;
    this.#said = performance.now();
    this.stream.write(`${this.label}: ${this.describe()}\n`);
  }

  pause(): void {
    if (this.#timer !== null) clearInterval(this.#timer);
    this.#timer = null;
  }

  /** Also work that says nothing for long (a server that does not answer, a judge of one's own) is seen to go on. */
  resume(): void {
    this.#timer = setInterval(() => this.show(), 1000);
    this.#timer.unref();
  }
}
