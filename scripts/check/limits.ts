import { cppFunctions } from "./cpp-functions.ts";
import { isCpp, type SourceFile } from "./files.ts";

const fileLimit = 450;
const kernelLimit = 300;
const functionLimit = 60;

function isKernel(path: string): boolean {
  return /^native\/src\/backend\/[^/]+\/kernels\//.test(path) || path.endsWith(".cu");
}

/** Files and C++ functions that are too long. (TypeScript functions are Biome's, see biome.json.) */
export function lengthProblems(files: readonly SourceFile[]): string[] {
  const problems: string[] = [];
  for (const { path, text } of files) {
    const lines = text.split("\n").length - (text.endsWith("\n") ? 1 : 0);
    const limit = isKernel(path) ? kernelLimit : fileLimit;
    if (lines > limit) problems.push(`${path}: ${lines} lines, over ${limit}`);
    if (!isCpp(path)) continue;
    for (const { head, line, bodyLines } of cppFunctions(text)) {
      if (bodyLines > functionLimit) {
        problems.push(
          `${path}:${line}: a function of ${bodyLines} lines, over ${functionLimit}: ${head.slice(0, 100)}`,
        );
      }
    }
  }
  return problems;
}
