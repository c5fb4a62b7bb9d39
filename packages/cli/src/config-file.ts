import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { isObject, isThere, TemporaError } from "@tempora/errors";
import type { ConfiguredFunction, TemporaConfig } from "@tempora/run";
import { functionVersion } from "./function-version.ts";

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
  if (!isThere(file, "Cannot read the configuration")) {
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
      remedy: /'@tempora\//.test(reason ?? "")
        ? "Leave the import out where Tempora is not installed beside the file: defineConfig only adds types, `export default { ... }` is the same."
        : "Correct the file; it is a TypeScript module.",
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
  return { file, config: await withVersions(config as TemporaConfig, resolve(file)) };
}

/** Gives the judge's functions versions, where they name none: the store must know one function from another. */
async function withVersions(config: TemporaConfig, file: string): Promise<TemporaConfig> {
  const functions: unknown = config.judge?.functions;
  if (!Array.isArray(functions)) return config;
  const versioned = functions.map(async (part: unknown) => {
    if (!isObject(part) || part.version !== undefined || typeof part.score !== "function") return part;
    return { ...part, version: await functionVersion(part.score, file) };
  });
  const judge = { ...config.judge, functions: (await Promise.all(versioned)) as ConfiguredFunction[] };
  return { ...config, judge };
}
