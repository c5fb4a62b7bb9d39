import { mkdir, readdir, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { canonical, fileError, type Json, systemErrorCode } from "@tempora/errors";
import type { CollapseLimits } from "@tempora/preferences";
import {
  codeVersion,
  hashResponses,
  type Judge,
  type JudgedRows,
  lockFolder,
  numericsOf,
  type Response,
} from "@tempora/run";
import { writeWhole } from "@tempora/text";
import type { Context } from "./context.ts";
import type { EngineFlags } from "./options.ts";

export interface JudgingOptions extends EngineFlags {
  /** Day that the chat template is told, where it asks for one. */
  date: string | null;
  /** When a judge counts as one that gives no scores. The rest of them do not end the work. */
  limits: CollapseLimits;
  /** For the progress. */
  label?: string;
}

/** A folder beside an output that holds what was made of it so far: the same command goes on from there. */
export class PartialWork implements AsyncDisposable {
  #released = false;

  private constructor(
    readonly folder: string,
    readonly context: Context,
    private readonly lock: { release(): Promise<void> },
    /** Aborts with the context, and when the folder's lock is lost. */
    readonly signal: AbortSignal,
  ) {}

  static async open(folder: string, context: Context): Promise<PartialWork> {
    const lost = new AbortController();
    const lock = await lockFolder(folder, "The output", (reason) => lost.abort(reason));
    return new PartialWork(folder, context, lock, AbortSignal.any([context.signal, lost.signal]));
  }

  /** Judges the responses, going on with what the same judge made of the same responses before. */
  async judge(judge: Judge, responses: readonly Response[], options: JudgingOptions): Promise<JudgedRows> {
    const { device, dtype, threads, quantize, date, limits, label = "judge" } = options;
    await this.begin({
      judge: judge.identity,
      responses: hashResponses(judge, responses),
      date,
      numerics: numericsOf({ device, dtype: dtype ?? null, threads, quantize: quantize ?? null }),
    });
    const stage = this.context.progress.stage(label, responses.length * judge.perResponse, "judgements");
    const judged = await judge.judge(responses, {
      folder: this.folder,
      signal: this.signal,
      // Files may be judged by a judge that is never sure; one that says nothing at all is stopped.
      limits: { ...limits, minVariance: 0, maxEqualShare: 1, maxTieRate: 1 },
      progress: (done) => stage.update(done),
    });
    stage.finish();
    return judged;
  }

  /** The output is there: what led to it goes. */
  async done(): Promise<void> {
    await this.#empty();
    await this[Symbol.asyncDispose]();
    await rm(this.folder, { recursive: true, force: true });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#released) return;
    this.#released = true;
    await this.lock.release();
  }

  /** What was made of other inputs, or by other code, is begun anew. Returns whether there is something to go on with. */
  async begin(inputs: Record<string, Json>): Promise<boolean> {
    const file = join(this.folder, "inputs.json");
    const text = `${canonical({ code: await codeVersion(), ...inputs })}\n`;
    let before: string | null = null;
    try {
      before = await readFile(file, "utf8");
    } catch (error) {
      if (systemErrorCode(error) !== "ENOENT") throw fileError(error, "Cannot read what was begun", file);
    }
    if (before === text) return true;
    if (before !== null)
      this.context.progress.note(`${this.folder} is of other inputs, settings or code: it is begun anew.`);
    await this.#empty();
    await mkdir(this.folder, { recursive: true });
    await writeWhole(file, text);
    return false;
  }

  async #empty(): Promise<void> {
    for (const name of await readdir(this.folder)) {
      if (!name.startsWith(".lock")) await rm(join(this.folder, name), { recursive: true, force: true });
    }
  }
}
