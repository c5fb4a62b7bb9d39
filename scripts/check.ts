// What a machine can judge without running the engine: types, lint, formatting, lengths, the direction of imports.
// Prints what failed and where; `bun run format` mends formatting.
import { isCpp, type SourceFile, sourceFiles } from "./check/files.ts";
import { clangFormat, runTool } from "./check/formatters.ts";
import { importProblems } from "./check/imports.ts";
import { lengthProblems } from "./check/limits.ts";
import { root, SetupError } from "./setup/command.ts";

interface Check {
  name: string;
  /** Prints what it finds and returns whether all is well. */
  run(files: readonly SourceFile[]): Promise<boolean> | boolean;
}

function none(problems: readonly string[]): boolean {
  for (const problem of problems) console.log(problem);
  return problems.length === 0;
}

const checks: readonly Check[] = [
  { name: "types", run: async () => (await runTool(root, "typescript/bin/tsc", ["--noEmit", "-p", "."])) === 0 },
  { name: "lint and format", run: async () => (await runTool(root, "@biomejs/biome/bin/biome", ["ci", "."])) === 0 },
  {
    name: "C++ format",
    run: async (files) => {
      const paths = files.map((file) => file.path).filter(isCpp);
      return (await clangFormat(root, paths, ["--dry-run", "-Werror"])) === 0;
    },
  },
  { name: "lengths", run: (files) => none(lengthProblems(files)) },
  { name: "imports", run: (files) => none(importProblems(files)) },
];

async function passes(check: Check, files: readonly SourceFile[]): Promise<boolean> {
  try {
    return await check.run(files);
  } catch (error) {
    if (!(error instanceof SetupError)) throw error;
    console.log(error.message);
    return false;
  }
}

async function main(): Promise<number> {
  const files = sourceFiles(root);
  const failed: string[] = [];
  for (const check of checks) {
    console.log(`check: ${check.name}`);
    if (!(await passes(check, files))) failed.push(check.name);
  }
  console.log(failed.length === 0 ? `check: all ${checks.length} passed` : `check: failed: ${failed.join(", ")}`);
  return failed.length === 0 ? 0 : 1;
}

process.exitCode = await main();
