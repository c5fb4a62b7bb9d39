import { Database } from "bun:sqlite";
import { mkdirSync } from "node:fs";
import { dirname } from "node:path";

const retryMilliseconds = 100;

/**
 * Runs `work` while no other process runs work under the same lock file; `onWait` is called once when it has to wait.
 * The lock is SQLite's write lock: the operating system releases it when its holder dies, so none is ever stale.
 */
export async function withLock<T>(file: string, onWait: () => void, work: () => Promise<T>): Promise<T> {
  mkdirSync(dirname(file), { recursive: true });
  using database = new Database(file);
  database.run("PRAGMA busy_timeout = 0");
  for (let waited = false; !takeLock(database); ) {
    if (!waited) onWait();
    waited = true;
    await Bun.sleep(retryMilliseconds);
  }
  try {
    return await work();
  } finally {
    database.run("ROLLBACK");
  }
}

function takeLock(database: Database): boolean {
  try {
    database.run("BEGIN IMMEDIATE");
    return true;
  } catch (error) {
    if (error instanceof Error && "code" in error && String(error.code).startsWith("SQLITE_BUSY")) return false;
    throw error;
  }
}
