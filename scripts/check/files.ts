import { readFileSync } from "node:fs";
import { join } from "node:path";

/** A file of the repository, by its path from the root, with "/" between folders. */
export interface SourceFile {
  path: string;
  text: string;
}

const sourceFile = /\.(ts|tsx|mjs|js|h|hpp|cpp|cuh|cu)$/;

/** All source files that git knows or does not ignore. */
export function sourceFiles(root: string): SourceFile[] {
  const git = Bun.spawnSync(["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"], { cwd: root });
  if (git.exitCode !== 0) throw new Error(`git ls-files failed: ${git.stderr.toString()}`);
  const paths = new Set(
    git.stdout
      .toString()
      .split("\0")
      .filter((path) => sourceFile.test(path)),
  );
  const files: SourceFile[] = [];
  for (const path of [...paths].sort()) {
    const file = join(root, path);
    if (Bun.file(file).size > 0) files.push({ path, text: readFileSync(file, "utf8") });
  }
  return files;
}

export function isCpp(path: string): boolean {
  return /\.(h|hpp|cpp|cuh|cu)$/.test(path);
}
