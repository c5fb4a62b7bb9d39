import { cp } from "node:fs/promises";
import { join } from "node:path";
import { oracle, scratch } from "@tempora/testing";

/** A copy of an oracle checkpoint that a test may damage. */
export async function copyOracle(family: string, which: string): Promise<string> {
  const folder = join(await scratch(), which);
  await cp(oracle(family, which), folder, { recursive: true });
  return folder;
}
