import { TemporaError } from "@tempora/errors";
import { type FolderLock, folderLockOwner, tryLockFolder } from "@tempora/models";

/**
 * Locks a run's folder against other processes; a held lock is an error that names the holder. `what`: "The run". `lost` is
 * called when its file was removed under its holder.
 */
export async function lockFolder(folder: string, what: string, lost: (reason: Error) => void): Promise<FolderLock> {
  const lock = await tryLockFolder(folder, lost);
  if (lock !== null) return lock;
  const owner = await folderLockOwner(folder);
  throw new TemporaError(`${what} is in use by ${owner === null ? "another process" : `process ${owner.pid}`}`, {
    where: { file: folder },
    remedy: "Wait until that process ends, or stop it; to run beside it, choose another name with --run.",
  });
}
