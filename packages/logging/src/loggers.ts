import { join } from "node:path";
import { jsonlLogger } from "./jsonl.ts";
import type { LoggedRow, Logger, Outcome, Series } from "./logger.ts";
import { mlflowLogger } from "./mlflow.ts";
import { tensorboardLogger } from "./tensorboard.ts";
import { wandbLogger } from "./wandb.ts";

const makers = {
  tensorboard: tensorboardLogger,
  wandb: wandbLogger,
  mlflow: mlflowLogger,
  jsonl: jsonlLogger,
} satisfies Record<string, (series: Series) => Promise<Logger>>;

export type LoggerKind = keyof typeof makers;

export const loggerKinds = Object.keys(makers) as LoggerKind[];

export interface LoggersOptions {
  kinds: readonly LoggerKind[];
  /** Files go to <folder>/<kind>/<series>/. */
  folder: string;
  /** Of the training, for people. */
  name: string;
  settings: Readonly<Record<string, unknown>>;
  /** Told once for each logger that fails, and at the end how much it did not take. */
  warn(text: string): void;
  /** Milliseconds until a logger that failed is tried again. */
  retryAfter?: number;
}

/**
 * Sends every row to every logger. What a logger does, how long it takes and whether it fails does not concern the training:
 * calls return at once, rows wait in order, and a logger that failed is tried again with all that it has not taken.
 */
export class Loggers {
  readonly #options: LoggersOptions;
  readonly #outlets = new Map<string, Outlet[]>();
  readonly #steps = new Map<string, number>();

  constructor(options: LoggersOptions) {
    this.#options = options;
  }

  /** A training step of a series ("" where there is one only): its place in the series is its step. */
  step(series: string, values: Readonly<Record<string, number>>): void {
    const step = (this.#steps.get(series) ?? 0) + 1;
    this.#steps.set(series, step);
    this.#log(series, { step, time: Date.now(), kind: "train", values });
  }

  /** Figures of an evaluation, at the step that the series has come to. */
  evaluation(series: string, values: Readonly<Record<string, number>>): void {
    this.#log(series, { step: this.#steps.get(series) ?? 0, time: Date.now(), kind: "eval", values });
  }

  /** Sends what waits, once more where it failed, and closes every logger. */
  async close(outcome: Outcome): Promise<void> {
    await Promise.all([...this.#outlets.values()].flat().map((outlet) => outlet.close(outcome)));
  }

  #log(series: string, row: LoggedRow): void {
    for (const outlet of this.#outletsOf(series)) outlet.add(row);
  }

  #outletsOf(series: string): Outlet[] {
    const known = this.#outlets.get(series);
    if (known !== undefined) return known;
    const { kinds, folder, name, settings, warn, retryAfter = 10_000 } = this.#options;
    const outlets = kinds.map((kind) => {
      const own = { folder: join(folder, kind, series), name: series === "" ? name : `${name}/${series}`, settings };
      return new Outlet(kind, () => makers[kind](own), warn, retryAfter);
    });
    this.#outlets.set(series, outlets);
    return outlets;
  }
}

/** One logger of one series, with the rows that it has not taken yet. */
class Outlet {
  #logger: Logger | null = null;
  #waiting: LoggedRow[] = [];
  #sending: Promise<void> | null = null;
  #failure = "";
  #notBefore = 0;

  constructor(
    readonly kind: LoggerKind,
    readonly make: () => Promise<Logger>,
    readonly warn: (text: string) => void,
    readonly retryAfter: number,
  ) {}

  add(row: LoggedRow): void {
    this.#waiting.push(row);
    if (Date.now() >= this.#notBefore) this.#sending ??= this.#send();
  }

  async close(outcome: Outcome): Promise<void> {
    await this.#sending;
    if (this.#waiting.length > 0) await this.#send();
    if (this.#waiting.length > 0) {
      this.warn(`${this.kind}: ${this.#waiting.length} rows were not logged: ${this.#failure}`);
    }
    await this.#logger?.close(outcome).catch((error: unknown) => {
      if (this.#failure === "") this.warn(`${this.kind} could not be closed: ${messageOf(error)}`);
    });
  }

  async #send(): Promise<void> {
    try {
      while (this.#waiting.length > 0) {
        const rows = [...this.#waiting];
        this.#logger ??= await this.make();
        await this.#logger.log(rows);
        this.#waiting = this.#waiting.slice(rows.length);
        this.#failure = "";
      }
    } catch (error) {
      if (this.#failure === "")
        this.warn(`${this.kind} takes no metrics now, the training goes on: ${messageOf(error)}`);
      this.#failure = messageOf(error);
      this.#notBefore = Date.now() + this.retryAfter;
    } finally {
      this.#sending = null;
    }
  }
}

/** With the cause: fetch says only that it failed. */
function messageOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return error.cause instanceof Error && error.cause.message !== ""
    ? `${error.message} (${error.cause.message})`
    : error.message;
}
