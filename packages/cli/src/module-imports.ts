import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, extname } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { fileError } from "@tempora/errors";
import { resolve } from "import-meta-resolve";

/** What a JavaScript or TypeScript module imports, as it names it; types are left out. */
export function importsOf(file: string): string[] {
  if (extname(file) === ".json") return [];
  try {
    const source = readFileSync(file, "utf8");
    // Native code that only functions without a version of their own need.
    const { parseSync } = createRequire(import.meta.url)("oxc-parser") as typeof import("oxc-parser");
    const { module, errors } = parseSync(file, source);
    const wrong = errors.find(({ severity }) => severity === "Error");
    if (wrong !== undefined) throw new SyntaxError(wrong.message);
    const found = new Set<string>();
    for (const { entries, moduleRequest } of module.staticImports) {
      if (entries.length === 0 || entries.some(({ isType }) => !isType)) found.add(moduleRequest.value);
    }
    for (const { entries } of module.staticExports) {
      for (const { isType, moduleRequest } of entries)
        if (moduleRequest !== null && !isType) found.add(moduleRequest.value);
    }
    for (const { moduleRequest } of module.dynamicImports) {
      const literal = /^["']([^"']+)["']$/.exec(source.slice(moduleRequest.start, moduleRequest.end));
      if (literal?.[1] !== undefined) found.add(literal[1]);
    }
    return [...found];
  } catch (error) {
    throw fileError(error, "Cannot read the imports", file);
  }
}

/** The file that an import leads to, by the rules of the runtime that would follow it. @throws where there is none. */
export function importedFile(specifier: string, from: string): string {
  if (process.versions.bun !== undefined) return Bun.resolveSync(specifier, dirname(from));
  return fileURLToPath(resolve(specifier, pathToFileURL(from).href));
}
