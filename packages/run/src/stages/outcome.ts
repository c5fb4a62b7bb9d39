import { existsSync } from "node:fs";
import { join } from "node:path";
import type { Json } from "@tempora/errors";
import { type FileHashes, hashOf } from "../models/file-hashes.ts";
import type { SealedRows } from "../store/row-log.ts";
import type { StoreUser } from "../store/users.ts";
import { beginStage, hashResult, type OutcomeRecord, type Position, type RunContext } from "./context.ts";
import { earlierSteps } from "./train.ts";

export interface OutcomePlan<T> {
  kind: string;
  /** For people: "iteration 1 of temporal". */
  label: string;
  /** Everything that decides the outcome, numerics and code aside. */
  inputs: Record<string, Json>;
  runFolder: StoreUser["run"];
  /** The files for people that come with the outcome, relative to the run folder. */
  files(value: T): readonly string[];
  /** Gives plain JSON. All its stages are asked for through this context. */
  compute(context: RunContext): Promise<T>;
}

interface Outcome<T> extends OutcomeRecord {
  value: T;
  /** Of the files for people. */
  files: FileHashes;
}

/**
 * What a piece of the run comes to, kept in the store with the stages that led to it: where all of them have the results that
 * they had, and the files for people are what was written, they are asked for by their keys alone, and no row of theirs is
 * read. Else the piece is done again, of the stages that are there. What ends a strategy is never kept.
 */
export async function keptOutcome<T>(context: RunContext, plan: OutcomePlan<T>): Promise<T> {
  const { store, numerics, keptCode } = context;
  const { kind, label } = plan;
  const inputs = { numerics, keptCode: [...keptCode], ...plan.inputs };
  const kept = await store.result<Outcome<T>>(kind, store.key(kind, inputs));
  if (kept !== null && (await stands(context, plan, kept.result))) {
    await store.ask({ kind, key: store.key(kind, inputs), label });
    await askAgain(context, kept.result);
    return kept.result.value;
  }
  const record: OutcomeRecord = { stages: [], findings: [] };
  const value = await plan.compute({ ...context, record });
  const outcome: Outcome<T> = { ...record, value, files: await hashFiles(plan.runFolder, plan.files(value)) };
  return (await store.stage({ kind, label, inputs, anew: true, compute: async () => outcome })).result.value;
}

async function hashFiles(folder: string, names: readonly string[]): Promise<FileHashes> {
  const hashes: Record<string, string> = {};
  for (const name of names) hashes[name] = await hashOf(join(folder, name));
  return hashes;
}

async function stands<T>(
  { store, signal }: RunContext,
  { runFolder }: OutcomePlan<T>,
  { stages, files }: Outcome<T>,
): Promise<boolean> {
  for (const { kind, key, result } of stages) {
    const found = await store.result(kind, key);
    if (found === null || hashResult(found.result) !== result) return false;
  }
  for (const [name, hash] of Object.entries(files)) {
    signal?.throwIfAborted();
    const file = join(runFolder, name);
    if (!existsSync(file) || (await hashOf(file)) !== hash) return false;
  }
  return true;
}

/** Asks for the stages of a kept outcome, in their order, with the events and words that they had. */
async function askAgain(context: RunContext, { stages, findings }: OutcomeRecord): Promise<void> {
  for (const { result: _, training, temporary, ...stage } of stages) {
    context.signal?.throwIfAborted();
    const begun = beginStage(context, stage);
    const { kind, key, label, position } = stage;
    await context.store.ask({ kind, key, label, temporary });
    begun.end(true);
    if (training !== undefined) await stepsAgain(context, { ...training, position }, stage);
  }
  for (const text of findings) context.observer.note(text);
}

async function stepsAgain(
  context: RunContext,
  plan: { name: string; phase: number; position: Position },
  { kind, key }: { kind: string; key: string },
): Promise<void> {
  const trained = await context.store.result<{ metrics: SealedRows }>(kind, key);
  if (trained === null) throw new TypeError(`the ${kind} ${key} went away`);
  for await (const _ of earlierSteps(context, plan, trained));
}
