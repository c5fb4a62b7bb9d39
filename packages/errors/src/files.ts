import { statSync } from "node:fs";
import { TemporaError } from "./error.ts";

const remedies: Record<string, string> = {
  ENOENT: "Check the path",
  ENOTDIR: "Check the path: a part of it is a file, not a folder",
  EEXIST: "Choose another place, or remove what is there",
  EISDIR: "Name a file, not a folder",
  EACCES: "Give the user that runs this the right to it, or choose another place",
  EPERM: "Give the user that runs this the right to it, or choose another place",
  EROFS: "Choose a place on a file system that can be written",
  ENOSPC: "Free some space or choose another place",
  EDQUOT: "Free some space or choose another place",
  ELOOP: "Correct the link",
  EMFILE: "Raise the limit of open files (ulimit -n)",
};

const reasons: Record<string, string> = {
  ENOENT: "it does not exist",
  ENOTDIR: "it is not a folder",
  EEXIST: "something of that name is in the way",
  EISDIR: "it is a folder",
  EACCES: "permission denied",
  EPERM: "not permitted",
  EROFS: "the file system is read-only",
  ENOSPC: "no space left",
  EDQUOT: "the disk quota is used up",
  ELOOP: "its links lead in a circle",
  EMFILE: "too many open files",
};

/** The system's code of a failed file operation ("ENOENT"), or undefined for any other error, such as an abort. */
export function systemErrorCode(error: unknown): string | undefined {
  if (!(error instanceof Error) || !("code" in error) || !("errno" in error)) return undefined;
  return typeof error.code === "string" ? error.code : undefined;
}

/**
 * Whether something is at the path. Where that cannot be seen (a folder before it that may not be entered), it is not taken
 * for missing.
 * @param action What fails then, as in "Cannot read the store".
 */
export function isThere(path: string, action: string): boolean {
  try {
    statSync(path);
    return true;
  } catch (error) {
    if (["ENOENT", "ENOTDIR", "ENAMETOOLONG"].includes(systemErrorCode(error) ?? "")) return false;
    throw fileError(error, action, path);
  }
}

/**
 * Turns a failed file operation into a TemporaError that says what could not be done and why; a TemporaError passes through.
 * @param action What was tried, as in "Cannot read the tokenizer".
 */
export function fileError(error: unknown, action: string, file: string): TemporaError {
  if (error instanceof TemporaError) return error;
  const code = systemErrorCode(error) ?? "";
  const reason = reasons[code] ?? (error instanceof Error ? error.message : String(error));
  return new TemporaError(`${action}: ${reason}`, {
    where: { file },
    remedy: `${remedies[code] ?? "Check the file and the disk it lies on"}.`,
    cause: error,
  });
}
