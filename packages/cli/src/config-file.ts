import { existsSync } from "node:fs";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { TemporaError } from "@tempora/errors";
import type { TemporaConfig } from "@tempora/run";

/** Read when no other one is named and it exists. */
export const defaultConfigFile = "tempora.config.ts";

export interface ConfigFile {
  /** As the user named it. */
  file: string;
  /** Not checked yet beyond being an object: parseConfig names what is wrong. */
  config: TemporaConfig;
}

/** Loads the named file, or ./tempora.config.ts where there is one; null without any. */
export async function loadConfigFile(named: string | undefined): Promise<ConfigFile | null> {
  const file = named ?? defaultConfigFile;
  if (!existsSync(file)) {
    if (named === undefined) return null;
    throw new TemporaError("There is no such configuration file", { where: { file }, remedy: "Check the path." });
  }
  let loaded: Record<string, unknown>;
  try {
    loaded = (await import(pathToFileURL(resolve(file)).href)) as Record<string, unknown>;
  } catch (cause) {
    if (cause instanceof TemporaError) throw cause;
    const reason = cause instanceof Error ? cause.message.split("\n")[0] : String(cause);
    throw new TemporaError(`The configuration does not load: ${reason}`, {
      where: { file },
      remedy: "Correct the file; it is a TypeScript module.",
      cause,
    });
  }
  const config = loaded.default;
  if (typeof config !== "object" || config === null || Array.isArray(config)) {
    throw new TemporaError("The configuration has no object as its default export", {
      where: { file },
      remedy: "Write `export default defineConfig({ ... })`.",
    });
  }
  return { file, config: config as TemporaConfig };
}
