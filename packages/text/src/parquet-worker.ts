// Reads a Parquet file on a thread of its own: a damaged page can lead the decoder into a loop that only the end of its thread ends.
import { parentPort, workerData } from "node:worker_threads";
import { readGroups } from "./parquet-groups.ts";

/** What the thread answers each time it is asked for more. */
export type ParquetAnswer = { rows: Record<string, unknown>[] } | { failure: string } | { end: true };

const reading = readGroups(workerData as string);
parentPort?.on("message", async () => {
  let answer: ParquetAnswer;
  try {
    const { value, done } = await reading.next();
    answer = done ? { end: true } : { rows: value };
  } catch (error) {
    answer = { failure: error instanceof Error ? error.message : String(error) };
  }
  parentPort?.postMessage(answer);
});
