import { statSync } from "node:fs";
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";
import { fileError, isObject, systemErrorCode, TemporaError } from "@tempora/errors";

const lockName = ".lock.sqlite";
const ownerName = ".lock-owner";

/** How often an owner looks whether its lock is still the one that others would take, in milliseconds. */
const watchMilliseconds = 1000;

export interface FolderLock {
  /** Gives the folder back; twice is once. */
  release(): Promise<void>;
}

/** The process that holds a lock. */
export interface LockOwner {
  pid: number;
  host: string;
}

/**
 * Locks a folder against other processes, creating it where it is missing; null when another one holds it. The lock is
 * SQLite's write lock on an empty file: the operating system gives it back when its owner dies, so none is ever stale and
 * none is ever taken over from a process that lives, be it stopped or in another container. Nothing may open that file by
 * other means in the owner's process: POSIX drops a process's locks on a file with the first of its handles that closes.
 * `lost` is called when somebody removed the file, so that another process could lock the folder too.
 */
export async function tryLockFolder(folder: string, lost: (reason: Error) => void): Promise<FolderLock | null> {
  const file = join(folder, lockName);
  const ownerFile = join(folder, ownerName);
  try {
    await mkdir(folder, { recursive: true });
    const held = await take(file);
    if (held === null) return null;
    // Removed between opening and locking: what is held is no longer the file that others lock.
    const own = identity(file);
    if (own === null) {
      held.close();
      return null;
    }
    await writeOwner(ownerFile, held);
    const watch = setInterval(() => {
      if (identity(file) === own) return;
      clearInterval(watch);
      lost(lossOf(folder));
    }, watchMilliseconds);
    watch.unref();
    let released = false;
    return {
      async release() {
        if (released) return;
        released = true;
        clearInterval(watch);
        // Whoever locked the folder after a loss has written its own name.
        if (identity(file) === own) await rm(ownerFile, { force: true });
        held.close();
      },
    };
  } catch (error) {
    throw fileError(error, "Cannot lock the folder", folder);
  }
}

/** Who holds the lock of this folder, or null when that is not known. */
export async function folderLockOwner(folder: string): Promise<LockOwner | null> {
  try {
    const value: unknown = JSON.parse(await readFile(join(folder, ownerName), "utf8"));
    if (!isObject(value)) return null;
    const { pid, host } = value;
    return typeof pid === "number" && typeof host === "string" ? { pid, host } : null;
  } catch {
    // Not written yet.
    return null;
  }
}

interface Connection {
  exec(sql: string): unknown;
  close(): void;
}

/** The connection that holds the lock until it is closed, or null when another one does. */
async function take(file: string): Promise<Connection | null> {
  const database = await connect(file);
  try {
    database.exec("PRAGMA busy_timeout = 0");
    database.exec("BEGIN IMMEDIATE");
    return database;
  } catch (error) {
    database.close();
    if (isBusy(error)) return null;
    throw error;
  }
}

async function connect(file: string): Promise<Connection> {
  if (process.versions.bun !== undefined) {
    const { Database } = await import("bun:sqlite");
    return new Database(file);
  }
  const { DatabaseSync } = await import("node:sqlite");
  return new DatabaseSync(file);
}

/** SQLITE_BUSY, whichever runtime says it: Bun by `errno`, Node by `errcode`; the low byte without its extension. */
function isBusy(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  const { errno, errcode } = error as { errno?: unknown; errcode?: unknown };
  const code = typeof errcode === "number" ? errcode : errno;
  return typeof code === "number" && (code & 0xff) === 5;
}

async function writeOwner(file: string, held: Connection): Promise<void> {
  try {
    await writeFile(file, JSON.stringify({ pid: process.pid, host: hostname() } satisfies LockOwner));
  } catch (error) {
    held.close();
    throw error;
  }
}

/** Which file lies at a path, or null for none. It is not opened. */
function identity(file: string): string | null {
  try {
    const { dev, ino } = statSync(file, { bigint: true });
    return `${dev}:${ino}`;
  } catch (error) {
    if (systemErrorCode(error) === "ENOENT") return null;
    throw error;
  }
}

function lossOf(folder: string): TemporaError {
  return new TemporaError("The lock of this folder was removed while it was in use", {
    where: { file: join(folder, lockName) },
    remedy: "Another process may have written to the folder: start again when nothing else uses it.",
  });
}
