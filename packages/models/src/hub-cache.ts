import { existsSync } from "node:fs";
import { mkdir, readdir, readFile, rename, rm, stat, symlink, writeFile } from "node:fs/promises";
import { dirname, join, relative } from "node:path";
import { fileError, systemErrorCode } from "@tempora/errors";
import type { HubFile } from "./hub-client.ts";
import { indexFile, shardsOf, singleFile } from "./weights.ts";

/** True for the whole hash of a commit, which names the same files for ever. */
export function isCommit(revision: string): boolean {
  return /^[0-9a-f]{40}$/.test(revision);
}

/**
 * One repository in the cache that Python shares: contents in blobs/<etag>, links to them in snapshots/<commit>/, and the
 * commit of a branch or tag in refs/<name>.
 */
export class HubCache {
  readonly folder: string;
  /** Locked while files are fetched. Python's own locks lie beside it. */
  readonly lockFolder: string;

  constructor(
    private readonly cache: string,
    id: string,
  ) {
    const name = `models--${id.replace("/", "--")}`;
    this.folder = join(cache, name);
    this.lockFolder = join(cache, ".locks", name, "tempora");
  }

  snapshot(commit: string): string {
    return join(this.folder, "snapshots", commit);
  }

  blob(file: HubFile): string {
    return join(this.folder, "blobs", file.etag);
  }

  /** The commit that a revision was when it was last fetched; null: never. */
  async commit(revision: string): Promise<string | null> {
    if (isCommit(revision)) return existsSync(this.snapshot(revision)) ? revision : null;
    const file = join(this.folder, "refs", revision);
    try {
      const commit = (await readFile(file, "utf8")).trim();
      return isCommit(commit) ? commit : null;
    } catch (error) {
      // A folder is the beginning of names such as refs/pr/1.
      if (["ENOENT", "ENOTDIR", "EISDIR"].includes(systemErrorCode(error) ?? "")) return null;
      throw fileError(error, "Cannot read the hub's cache", file);
    }
  }

  /** True when the snapshot links to this file, whole. */
  async has(commit: string, file: HubFile): Promise<boolean> {
    return (await sizeOf(join(this.snapshot(commit), file.path))) === file.size;
  }

  async hasBlob(file: HubFile): Promise<boolean> {
    return (await sizeOf(this.blob(file))) === file.size;
  }

  /** True when the snapshot has the weights; they are linked last, when all else is there. */
  async isUsable(commit: string, gguf: string | null): Promise<boolean> {
    const folder = this.snapshot(commit);
    if (gguf !== null) return existsSync(join(folder, gguf));
    if (!existsSync(join(folder, "config.json"))) return false;
    if (existsSync(join(folder, singleFile))) return true;
    if (!existsSync(join(folder, indexFile))) return false;
    return (await shardsOf(folder)).every((shard) => existsSync(join(folder, shard)));
  }

  /** Links a file of the snapshot to its blob, by a relative path as Python does. */
  async link(commit: string, file: HubFile): Promise<void> {
    const pointer = join(this.snapshot(commit), file.path);
    const fresh = `${pointer}.${process.pid}.tempora`;
    try {
      await mkdir(dirname(pointer), { recursive: true });
      await rm(fresh, { force: true });
      await symlink(relative(dirname(pointer), this.blob(file)), fresh);
      await rename(fresh, pointer);
    } catch (error) {
      throw fileError(error, "Cannot link the file into the hub's cache", pointer);
    }
  }

  async remember(revision: string, commit: string): Promise<void> {
    if (revision === commit) return;
    const file = join(this.folder, "refs", revision);
    const fresh = `${file}.${process.pid}.tempora`;
    try {
      if ((await this.commit(revision)) === commit) return;
      await mkdir(dirname(file), { recursive: true });
      await writeFile(fresh, commit);
      await rename(fresh, file);
    } catch (error) {
      throw fileError(error, "Cannot write into the hub's cache", file);
    }
  }

  /** Revisions of this repository that lie in the cache, for people. */
  async revisions(): Promise<string[]> {
    const names = (await list(join(this.folder, "refs"), true)).sort();
    const found: string[] = [];
    for (const name of names) {
      const commit = await this.commit(name);
      if (commit !== null && existsSync(this.snapshot(commit))) found.push(name);
    }
    return found.length > 0 ? found : (await list(join(this.folder, "snapshots"))).sort();
  }

  /** Ids of all models in the cache, for people. */
  async models(): Promise<string[]> {
    return (await list(this.cache))
      .filter((name) => name.startsWith("models--"))
      .map((name) => name.slice("models--".length).replace("--", "/"))
      .sort();
  }
}

/** Bytes of a file, through links; null when it is missing. */
export async function sizeOf(path: string): Promise<number | null> {
  try {
    return (await stat(path)).size;
  } catch (error) {
    if (["ENOENT", "ENOTDIR", "ELOOP"].includes(systemErrorCode(error) ?? "")) return null;
    throw fileError(error, "Cannot read the hub's cache", path);
  }
}

async function list(folder: string, recursive = false): Promise<string[]> {
  try {
    return await readdir(folder, { recursive });
  } catch (error) {
    if (systemErrorCode(error) === "ENOENT") return [];
    throw fileError(error, "Cannot read the hub's cache", folder);
  }
}
