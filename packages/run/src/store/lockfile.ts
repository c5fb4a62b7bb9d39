import { readFile } from "node:fs/promises";
import { fileError, TemporaError } from "@tempora/errors";

/** What bun.lock says of a package: "name@version", its registry, its own needs, its hash. */
type Locked = [id: string, registry?: string, needs?: { dependencies?: Record<string, string> }, hash?: string];

/** "name@version" of these packages and of all that they need, as a bun.lock has them; sorted. */
export async function lockedVersions(file: string, names: readonly string[]): Promise<string[]> {
  if (names.length === 0) return [];
  const packages = await lockedPackages(file);
  const found = new Map<string, string>();
  const follow = (name: string, parent: string | null): void => {
    // A package that needs another version than the others has one of its own.
    const key = parent !== null && `${parent}/${name}` in packages ? `${parent}/${name}` : name;
    const locked = packages[key];
    // Optional ones of other platforms are not in it.
    if (locked === undefined || found.has(key)) return;
    found.set(key, locked[0]);
    for (const needed of Object.keys(locked[2]?.dependencies ?? {})) follow(needed, key);
  };
  for (const name of names) {
    if (!(name in packages)) {
      throw new TemporaError(`The lockfile lacks ${name}`, { where: { file }, remedy: "Run `bun install`." });
    }
    follow(name, null);
  }
  return [...new Set(found.values())].sort();
}

async function lockedPackages(file: string): Promise<Record<string, Locked>> {
  try {
    // JSON but for commas behind the last element.
    const text = (await readFile(file, "utf8")).replaceAll(/,(\s*[}\]])/g, "$1");
    return (JSON.parse(text) as { packages: Record<string, Locked> }).packages;
  } catch (error) {
    throw fileError(error, "Cannot read the lockfile", file);
  }
}
