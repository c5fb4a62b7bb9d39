import { createHash } from "node:crypto";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { fileError, systemErrorCode, TemporaError } from "@tempora/errors";
import { lockedVersions } from "./lockfile.ts";

/** The package whose outputs a run keeps, and the sources that its addon is made of. */
const entry = "@tempora/run";
const nativeSources = "native/src";

interface Manifest {
  name: string;
  dependencies?: Record<string, string>;
}

/**
 * SHA-256 over the sources that decide a run's outputs: those of this package, of every package of the workspace that it
 * depends on, and of the addon, with the versions of the other packages that the lockfile gives these. Part of every stage's
 * key, so that a result of other code is never taken for one of this. Packages that were installed from a registry state
 * it as it was when they were packed.
 */
export async function codeVersion(root?: string): Promise<string> {
  if (root === undefined) {
    const packed = await packedVersion();
    if (packed !== null) return packed;
  }
  return sourceVersion(root ?? join(import.meta.dirname, "..", "..", "..", ".."));
}

async function packedVersion(): Promise<string | null> {
  const file = join(import.meta.dirname, "..", "..", "package.json");
  const { tempora } = JSON.parse(await readFile(file, "utf8")) as { tempora?: { code?: string } };
  return tempora?.code ?? null;
}

async function sourceVersion(root: string): Promise<string> {
  const hash = createHash("sha256");
  const reached = await reachedPackages(root);
  const external = reached.flatMap(({ manifest }) =>
    Object.entries(manifest.dependencies ?? {}).flatMap(([name, version]) => (isOwn(version) ? [] : [name])),
  );
  for (const name of await lockedVersions(join(root, "bun.lock"), external)) hash.update(`${name}\0`);
  for (const folder of [nativeSources, ...reached.map(({ folder: own }) => own)]) {
    const files = await sources(join(root, folder));
    for (const file of files) {
      hash.update(`${folder}/${file}\0`);
      hash.update(await readFile(join(root, folder, file)));
    }
  }
  return hash.digest("hex");
}

const isOwn = (version: string) => version.startsWith("workspace:");

interface WorkspacePackage {
  /** Of its sources. */
  folder: string;
  manifest: Manifest;
}

/** The package and its dependencies in the workspace, sorted by folder. */
async function reachedPackages(root: string): Promise<WorkspacePackage[]> {
  const manifests = await workspaceManifests(root);
  const reached = new Set<WorkspacePackage>();
  const reach = (name: string): void => {
    const found = manifests.get(name);
    if (found === undefined) {
      throw new TemporaError(`The workspace has no package ${name}`, {
        where: { file: join(root, "packages") },
        remedy: "Run Tempora from its own checkout, whole.",
      });
    }
    if (reached.has(found)) return;
    reached.add(found);
    for (const [dependency, version] of Object.entries(found.manifest.dependencies ?? {})) {
      if (isOwn(version)) reach(dependency);
    }
  };
  reach(entry);
  return [...reached].sort((a, b) => (a.folder < b.folder ? -1 : 1));
}

async function workspaceManifests(root: string): Promise<Map<string, WorkspacePackage>> {
  const packages = join(root, "packages");
  const manifests = new Map<string, WorkspacePackage>();
  for (const name of await list(packages)) {
    const file = join(packages, name, "package.json");
    try {
      const manifest = JSON.parse(await readFile(file, "utf8")) as Manifest;
      manifests.set(manifest.name, { folder: `packages/${name}/src`, manifest });
    } catch (error) {
      // A folder without one is no package: an older version's, of which its node_modules are left.
      if (systemErrorCode(error) === "ENOENT") continue;
      throw fileError(error, "Cannot read the package", file);
    }
  }
  return manifests;
}

async function sources(folder: string): Promise<string[]> {
  const names = await list(folder, true);
  const found = names.filter((name) => /\.(ts|h|cpp|cu|cuh)$/.test(name) && !name.endsWith(".test.ts")).sort();
  if (found.length > 0) return found;
  throw new TemporaError("The folder has no sources", {
    where: { file: folder },
    remedy: "Without them stages of other code could be reused: restore the checkout.",
  });
}

async function list(folder: string, recursive = false): Promise<string[]> {
  try {
    return (await readdir(folder, { recursive })).sort();
  } catch (error) {
    throw fileError(error, "Cannot read the sources", folder);
  }
}
