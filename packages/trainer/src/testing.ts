import { existsSync } from "node:fs";
import { resolve } from "node:path";

const shared = resolve(import.meta.dirname, "../../../../shared");

/** A path under ../shared/oracles, beside the repository. @throws Error when the oracles are not there. */
export function oracle(...parts: string[]): string {
  const path = resolve(shared, "oracles", ...parts);
  if (!existsSync(path)) throw new Error(`${path} is missing: put the oracles into ../shared beside the repository`);
  return path;
}

/** A path under ../shared/data. @throws Error when it is not there. */
export function sharedData(name: string): string {
  const path = resolve(shared, "data", name);
  if (!existsSync(path)) throw new Error(`${path} is missing: put the data into ../shared beside the repository`);
  return path;
}
