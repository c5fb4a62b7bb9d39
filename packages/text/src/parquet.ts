import { once } from "node:events";
import { extname } from "node:path";
import { Worker } from "node:worker_threads";
import { TemporaError } from "@tempora/errors";
import type { ParquetAnswer } from "./parquet-worker.ts";
import type { SourceRow } from "./types.ts";

/** A row group that takes longer, in milliseconds, is taken for one that never ends: gigabytes are read in less. */
const longestGroup = 60_000;

/**
 * Rows of a Parquet file, one row group in memory at a time.
 * @param patience how long a row group may take, in milliseconds
 */
export async function* readParquet(file: string, patience: number = longestGroup): AsyncGenerator<SourceRow> {
  const fail = (why: string) =>
    new TemporaError(`Cannot read the Parquet file: ${why}`, {
      where: { file },
      remedy: "Fetch or write the file again.",
    });
  // Beside this file, a source or what was built of it.
  const program = new URL(`./parquet-worker${extname(import.meta.url)}`, import.meta.url);
  const worker = new Worker(program, { workerData: file });
  try {
    for (let row = 0; ; ) {
      const answer = await next(worker, patience).catch((error: unknown) => {
        throw fail(
          error instanceof Error && error.name === "AbortError" ? "a part of it takes for ever" : String(error),
        );
      });
      if ("failure" in answer) throw fail(answer.failure);
      if ("end" in answer) return;
      for (const value of answer.rows) yield { row: ++row, value };
    }
  } finally {
    await worker.terminate();
  }
}

async function next(worker: Worker, patience: number): Promise<ParquetAnswer> {
  worker.postMessage("next");
  const [answer] = (await once(worker, "message", { signal: AbortSignal.timeout(patience) })) as [ParquetAnswer];
  return answer;
}
