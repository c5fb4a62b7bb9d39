import { createHash } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { builtinModules } from "node:module";
import { dirname, join, relative, sep } from "node:path";
import { pathToFileURL } from "node:url";
import { TemporaError } from "@tempora/errors";
import { importedFile, importsOf } from "./module-imports.ts";

/**
 * What decides a function's results: a hash of the module that exports it and of all that this imports; packages by
 * their versions. A function that no module exports is written in the configuration itself: then its module counts, and
 * with it every other setting in that file. What it reads at run time (files, servers) is not seen.
 */
export async function functionVersion(work: unknown, configFile: string): Promise<string> {
  const all = new ModuleGraph(dirname(configFile)).add(configFile);
  const home = await definingModule(
    work,
    [...all.files].filter((file) => file !== configFile),
  );
  const graph = home === null ? all : new ModuleGraph(dirname(configFile)).add(home.file);
  return graph.hash(home?.name ?? "");
}

/** The module that exports exactly this function. All of them have been loaded by the configuration. */
async function definingModule(work: unknown, files: readonly string[]): Promise<{ file: string; name: string } | null> {
  for (const file of files) {
    const module = (await import(pathToFileURL(file).href)) as Record<string, unknown>;
    const name = Object.keys(module).find((key) => module[key] === work);
    if (name !== undefined) return { file, name };
  }
  return null;
}

/** A module with all that it imports. */
class ModuleGraph {
  readonly files = new Set<string>();
  readonly #packages = new Set<string>();

  constructor(readonly root: string) {}

  add(file: string): this {
    if (this.files.has(file)) return this;
    this.files.add(file);
    for (const specifier of importsOf(file)) this.#follow(specifier, file);
    return this;
  }

  hash(start: string): string {
    const hash = createHash("sha256").update(`${start}\0`);
    for (const file of [...this.files].sort()) {
      hash
        .update(`${relative(this.root, file)}\0`)
        .update(readFileSync(file))
        .update("\0");
    }
    for (const name of [...this.#packages].sort()) hash.update(`${name}\0`);
    return hash.digest("hex");
  }

  #follow(specifier: string, from: string): void {
    // Tempora's own sources are part of every stage's key already.
    if (/^(?:node:|bun:|@tempora\/)/.test(specifier) || builtinModules.includes(specifier)) return;
    const file = resolved(specifier, from);
    if (file.includes(`${sep}node_modules${sep}`)) this.#packages.add(packageOf(file));
    else this.add(file);
  }
}

function resolved(specifier: string, from: string): string {
  try {
    return importedFile(specifier, from);
  } catch (cause) {
    throw new TemporaError(`The import ${specifier} leads nowhere`, {
      where: { file: from },
      remedy: "Correct the import, or give the judge's function a version.",
      cause,
    });
  }
}

/** "name@version" of the package that holds the file. */
function packageOf(file: string): string {
  for (let folder = dirname(file); folder !== dirname(folder); folder = dirname(folder)) {
    const manifest = join(folder, "package.json");
    if (!existsSync(manifest)) continue;
    const { name, version } = JSON.parse(readFileSync(manifest, "utf8")) as { name?: string; version?: string };
    if (name !== undefined && version !== undefined) return `${name}@${version}`;
  }
  return file;
}
