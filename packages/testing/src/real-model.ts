import { existsSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";

/** Where `scripts/fetch-real-model.ts` puts SmolLM2-135M-Instruct: outside the repository, shared by all clones. */
export function realModelFile(environment: Record<string, string | undefined> = process.env): string {
  const cache = environment.XDG_CACHE_HOME || join(homedir(), ".cache");
  return environment.TEMPORA_REAL_MODEL || join(cache, "tempora", "SmolLM2-135M-Instruct.Q4_1.gguf");
}

/** The file of SmolLM2-135M-Instruct (GGUF, Q4_1), or null where nobody has fetched it: test/oracles/smollm2 is its. */
export function realModel(): string | null {
  const file = realModelFile();
  if (existsSync(file)) return file;
  if (process.env.TEMPORA_REAL_MODEL) throw new Error(`TEMPORA_REAL_MODEL names ${file}, which does not exist`);
  return null;
}
