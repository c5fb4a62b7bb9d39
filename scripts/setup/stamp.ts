import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, statSync, writeFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";

/** All files under the given files and folders, sorted by path; what does not exist contributes nothing. */
export function filesUnder(...paths: string[]): string[] {
  const found: string[] = [];
  const visit = (path: string) => {
    if (!existsSync(path)) return;
    if (!statSync(path).isDirectory()) {
      found.push(path);
      return;
    }
    for (const name of readdirSync(path)) visit(join(path, name));
  };
  for (const path of paths) visit(path);
  return found.sort();
}

/** A hash of the files' names and contents, and of any further facts that the result depends on. */
export function contentHash(base: string, files: readonly string[], facts: readonly string[] = []): string {
  const hash = createHash("sha256");
  const add = (value: string | Uint8Array) => hash.update(`${value.length}:`).update(value);
  for (const fact of facts) add(fact);
  for (const file of files) {
    add(relative(base, file));
    add(readFileSync(file));
  }
  return hash.digest("hex");
}

export function readStamp(file: string): string | null {
  return existsSync(file) ? readFileSync(file, "utf8") : null;
}

/** Written by renaming, so that a stamp is there only when the work before it was done. */
export function writeStamp(file: string, stamp: string): void {
  mkdirSync(dirname(file), { recursive: true });
  const half = `${file}.${process.pid}`;
  writeFileSync(half, stamp);
  renameSync(half, file);
}
