import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";
import { fileError, systemErrorCode, TemporaError } from "@tempora/errors";
import lockfile from "proper-lockfile";

/** A lock that is not refreshed for this long was left behind. */
const staleMilliseconds = 30_000;

export interface FolderLock {
  /** Gives the folder back; twice is once. */
  release(): Promise<void>;
}

interface Owner {
  pid: number;
  host: string;
}

/**
 * Locks a folder against other processes, creating it where it is missing; null when another one holds it. The lock of a
 * process that is gone (killed, crashed, another boot) is taken over at once where its owner was on this machine, else
 * after ten seconds without a sign of life. `lost` is called when the lock was taken away in spite of that.
 */
export async function tryLockFolder(folder: string, lost: (reason: Error) => void): Promise<FolderLock | null> {
  const ownerFile = join(folder, ".lock-owner");
  try {
    await mkdir(folder, { recursive: true });
    const release = (await acquire(folder, lost)) ?? (await recover(folder, ownerFile, lost));
    if (release === null) return null;
    await writeFile(ownerFile, JSON.stringify({ pid: process.pid, host: hostname() } satisfies Owner));
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

/** As tryLockFolder, but a held lock is an error that names the holder. `what`: "The run". */
export async function lockFolder(folder: string, what: string, lost: (reason: Error) => void): Promise<FolderLock> {
  const lock = await tryLockFolder(folder, lost);
  if (lock !== null) return lock;
  const owner = await readOwner(join(folder, ".lock-owner"));
  throw new TemporaError(`${what} is in use by ${owner === null ? "another process" : `process ${owner.pid}`}`, {
    where: { file: folder },
    remedy: "Wait until that process ends, or stop it; to run beside it, choose another name with --run.",
  });
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

async function readOwner(file: string): Promise<Owner | null> {
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
