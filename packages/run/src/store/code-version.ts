import { createHash } from "node:crypto";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { fileError, systemErrorCode, TemporaError } from "@tempora/errors";

/** The package whose outputs a run keeps, and the sources that its addon is made of. */
const entry = "@tempora/run";
const nativeSources = "native/src";

interface Manifest {
  name: string;
  dependencies?: Record<string, string>;
}

/**
 * SHA-256 over the sources that decide a run's outputs: those of this package, of every package of the workspace that it
 * depends on, and of the addon. Part of every stage's key, so that a result of other code is never taken for one of this.
 */
export async function codeVersion(root: string = join(import.meta.dirname, "..", "..", "..", "..")): Promise<string> {
  const hash = createHash("sha256");
  for (const folder of [nativeSources, ...(await sourceFolders(root))]) {
    const files = await sources(join(root, folder));
    for (const file of files) {
      hash.update(`${folder}/${file}\0`);
      hash.update(await readFile(join(root, folder, file)));
    }
  }
  return hash.digest("hex");
}

/** The source folders of the package and its dependencies in the workspace, sorted. */
async function sourceFolders(root: string): Promise<string[]> {
  const manifests = await workspaceManifests(root);
  const reached = new Set<string>();
  const reach = (name: string): void => {
    const found = manifests.get(name);
    if (found === undefined) {
      throw new TemporaError(`The workspace has no package ${name}`, {
        where: { file: join(root, "packages") },
        remedy: "Run Tempora from its own checkout, whole.",
      });
    }
    if (reached.has(found.folder)) return;
    reached.add(found.folder);
    for (const [dependency, version] of Object.entries(found.manifest.dependencies ?? {})) {
      if (version.startsWith("workspace:")) reach(dependency);
    }
  };
  reach(entry);
  return [...reached].sort();
}

async function workspaceManifests(root: string): Promise<Map<string, { folder: string; manifest: Manifest }>> {
  const packages = join(root, "packages");
  const manifests = new Map<string, { folder: string; manifest: Manifest }>();
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
