import { appendFileSync, closeSync, openSync, writeSync } from "node:fs";
import { join } from "node:path";
import { fileError } from "@tempora/errors";
import type { Observer } from "./observer.ts";
import type { EventRow } from "./results.ts";

/**
 * events.jsonl, written anew by each start of the run: a reused stage gives the rows it gave at first, so the finished
 * file does not tell how often the run was interrupted. Durations go to timings.log, which is no artifact.
 */
export class EventLog implements Disposable {
  readonly #file: string;
  readonly #timings: string;
  #handle: number | null;

  constructor(
    readonly folder: string,
    private readonly observer: Observer,
  ) {
    this.#file = join(folder, "events.jsonl");
    this.#timings = join(folder, "timings.log");
    try {
      this.#handle = openSync(this.#file, "w");
    } catch (error) {
      throw fileError(error, "Cannot write the events", this.#file);
    }
  }

  append(row: EventRow): void {
    if (this.#handle === null) return;
    try {
      writeSync(this.#handle, `${JSON.stringify(row)}\n`);
    } catch (error) {
      throw fileError(error, "Cannot write the events", this.#file);
    }
    this.observer.event(this.folder, row);
  }

  time(label: string, seconds: number, reused: boolean): void {
    const line = `${new Date().toISOString()}\t${seconds.toFixed(3)} s\t${reused ? "reused" : "computed"}\t${label}\n`;
    try {
      appendFileSync(this.#timings, line);
    } catch (error) {
      throw fileError(error, "Cannot write the timings", this.#timings);
    }
  }

  [Symbol.dispose](): void {
    if (this.#handle !== null) closeSync(this.#handle);
    this.#handle = null;
  }
}
