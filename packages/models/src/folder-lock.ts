import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";
import { fileError, systemErrorCode } from "@tempora/errors";
import lockfile from "proper-lockfile";

/** A lock that is not refreshed for this long was left behind. */
const staleMilliseconds = 30_000;

const ownerName = ".lock-owner";

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
 * Locks a folder against other processes, creating it where it is missing; null when another one holds it. The lock of a
 * process that is gone (killed, crashed, another boot) is taken over at once where its owner was on this machine, else
 * after thirty seconds without a sign of life. `lost` is called when the lock was taken away in spite of that.
 */
export async function tryLockFolder(folder: string, lost: (reason: Error) => void): Promise<FolderLock | null> {
  const ownerFile = join(folder, ownerName);
  try {
    await mkdir(folder, { recursive: true });
    const release = (await acquire(folder, lost)) ?? (await recover(folder, ownerFile, lost));
    if (release === null) return null;
    await writeFile(ownerFile, JSON.stringify({ pid: process.pid, host: hostname() } satisfies LockOwner));
    let held = true;
    return {
      async release() {
        if (!held) return;
        held = false;
        await rm(ownerFile, { force: true });
        await release();
      },
    };
  } catch (error) {
    throw fileError(error, "Cannot lock the folder", folder);
  }
}

/** Who holds the lock of this folder, or null when that is not known. */
export function folderLockOwner(folder: string): Promise<LockOwner | null> {
  return readOwner(join(folder, ownerName));
}

async function acquire(folder: string, lost: (reason: Error) => void): Promise<(() => Promise<void>) | null> {
  try {
    return await lockfile.lock(folder, {
      lockfilePath: join(folder, ".lock"),
      realpath: false,
      stale: staleMilliseconds,
      update: 5_000,
      onCompromised: lost,
    });
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ELOCKED") return null;
    throw error;
  }
}

async function recover(
  folder: string,
  ownerFile: string,
  lost: (reason: Error) => void,
): Promise<(() => Promise<void>) | null> {
  const owner = await readOwner(ownerFile);
  if (owner === null || owner.host !== hostname() || isAlive(owner.pid)) return null;
  await rm(join(folder, ".lock"), { recursive: true, force: true });
  return acquire(folder, lost);
}

async function readOwner(file: string): Promise<LockOwner | null> {
  try {
    const value: unknown = JSON.parse(await readFile(file, "utf8"));
    if (typeof value !== "object" || value === null) return null;
    const { pid, host } = value as Record<string, unknown>;
    return typeof pid === "number" && typeof host === "string" ? { pid, host } : null;
  } catch {
    // Not written yet, or torn by a crash: then only the lock's age can tell.
    return null;
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return systemErrorCode(error) !== "ESRCH";
  }
}
