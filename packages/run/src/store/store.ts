import { existsSync } from "node:fs";
import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { canonical, fileError, hashJson, type Json, systemErrorCode, TemporaError } from "@tempora/errors";
import { type FolderLock, tryLockFolder } from "@tempora/models";
import { writeWhole } from "@tempora/text";
import { changedRemedy, sealed, unsealed } from "./sealed.ts";
import { type Asked, markUser, type StoreUser } from "./users.ts";

export interface StageOutcome<Result> {
  key: string;
  /** Where the stage's files lie. */
  folder: string;
  result: Result;
  /** True when nothing was computed. */
  reused: boolean;
}

export interface StageWork<Result> {
  kind: string;
  /** For people: "training F1 from M0". */
  label?: string;
  /** Whether the run that asks needs the stage's model no more once it has finished. */
  temporary?: boolean;
  /** Everything that decides the output, the code version aside. */
  inputs: Json;
  signal?: AbortSignal;
  /** Computes it again also where there is a result, which counts no more. */
  anew?: boolean;
  /** Called once when another process is computing the same stage. */
  onWait?(): void;
  /**
   * Computes the stage. Files go into `folder`, whole or as append-safe logs; what an interrupted attempt left there is
   * still there. The returned value becomes result.json, which marks the stage as done: it must be plain JSON.
   */
  compute(folder: string): Promise<Result>;
}

export interface StoreOptions {
  /** Called when a stage's lock was taken away from this process: what computes it must stop. */
  onLost?(reason: Error): void;
  /** Who asks: each stage that is asked for keeps it, so that what nobody needs can be told from the rest. */
  user?: StoreUser;
  /** Earlier versions of the code whose stages count, and are gone on with, as if they were this version's. */
  keptCode?: readonly string[];
}

/**
 * Outputs of stages under the hash of their inputs: <folder>/<kind>/<key>/. A stage is computed once, whoever asks;
 * resuming is asking again. Several processes may share a store.
 */
export class Store {
  constructor(
    readonly folder: string,
    readonly codeVersion: string,
    private readonly options: StoreOptions = {},
  ) {}

  /** Of a stage's output, whichever of the code's versions it is taken from. */
  key(kind: string, inputs: Json): string {
    const versions = [this.codeVersion, ...(this.options.keptCode ?? []).toReversed()];
    const keys = versions.map((code) => hashJson({ kind, code, inputs }));
    for (const name of ["result.json", "inputs.json"]) {
      const found = keys.find((key) => existsSync(join(this.folder, kind, key, name)));
      if (found !== undefined) return found;
    }
    return keys[0] as string;
  }

  async stage<Result>(work: StageWork<Result>): Promise<StageOutcome<Result>> {
    const key = this.key(work.kind, work.inputs);
    const folder = join(this.folder, work.kind, key);
    const done = work.anew === true ? null : await readResult<Result>(folder);
    if (done !== null) {
      await markUser(folder, this.options.user, work);
      return { key, folder, result: done.result, reused: true };
    }
    const lost = new AbortController();
    const lock = await this.#lock(folder, work, lost);
    try {
      const meanwhile = work.anew === true ? null : await readResult<Result>(folder);
      await markUser(folder, this.options.user, work);
      if (meanwhile !== null) return { key, folder, result: meanwhile.result, reused: true };
      await writeWhole(join(folder, "inputs.json"), `${canonical(work.inputs)}\n`);
      const result = await work.compute(folder);
      lost.signal.throwIfAborted();
      await writeWhole(join(folder, "result.json"), sealed(result));
      // Through JSON, so that a fresh result is what a reused one will be.
      return { key, folder, result: JSON.parse(JSON.stringify(result)) as Result, reused: false };
    } finally {
      await lock.release();
    }
  }

  /** What a stage came to by its key, with nobody asking for it; null where it has no result. */
  async result<Result>(kind: string, key: string): Promise<{ result: Result; folder: string } | null> {
    const folder = join(this.folder, kind, key);
    const found = await readResult<Result>(folder);
    return found === null ? null : { ...found, folder };
  }

  /** Keeps that the store's user asks for a stage, as `stage` does. */
  async ask({ kind, key, ...asked }: Asked & { kind: string; key: string }): Promise<void> {
    await markUser(join(this.folder, kind, key), this.options.user, asked);
  }

  async #lock(folder: string, work: StageWork<unknown>, lost: AbortController): Promise<FolderLock> {
    for (let attempt = 0; ; attempt++) {
      work.signal?.throwIfAborted();
      const lock = await tryLockFolder(folder, (reason) => {
        lost.abort(reason);
        this.options.onLost?.(reason);
      });
      if (lock !== null) return lock;
      if (attempt === 0) work.onWait?.();
      await sleep(200, undefined, work.signal === undefined ? {} : { signal: work.signal });
    }
  }
}

async function readResult<Result>(folder: string): Promise<{ result: Result } | null> {
  const file = join(folder, "result.json");
  let text: string;
  try {
    text = await readFile(file, "utf8");
  } catch (error) {
    if (systemErrorCode(error) === "ENOENT") return null;
    throw fileError(error, "Cannot read the stage's result", file);
  }
  try {
    return { result: unsealed(text) as Result };
  } catch (error) {
    if (error instanceof TemporaError) throw error.at({ file });
    throw new TemporaError("The stage's result is not what was written", {
      where: { file },
      remedy: changedRemedy,
      cause: error,
    });
  }
}

export async function makeFolder(folder: string): Promise<void> {
  try {
    await mkdir(folder, { recursive: true });
  } catch (error) {
    throw fileError(error, "Cannot create the folder", folder);
  }
}
