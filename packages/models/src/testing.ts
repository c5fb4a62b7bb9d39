import { cp } from "node:fs/promises";
import { basename, join } from "node:path";
import { oracle, scratch } from "@tempora/testing";

/** A copy of a folder that a test may damage. */
export async function copyFolder(source: string): Promise<string> {
  const folder = join(await scratch(), basename(source));
  await cp(source, folder, { recursive: true });
  return folder;
}

/** A copy of an oracle checkpoint that a test may damage. */
export async function copyOracle(family: string, which: string): Promise<string> {
  return copyFolder(oracle(family, which));
}
