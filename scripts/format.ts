// Formats TypeScript and C++ and applies the safe fixes of the linter.
import { isCpp, sourceFiles } from "./check/files.ts";
import { clangFormat, runTool } from "./check/formatters.ts";
import { root, SetupError, say } from "./setup/command.ts";

async function main(): Promise<number> {
  try {
    const biome = await runTool(root, "@biomejs/biome/bin/biome", ["check", "--write", "."]);
    const paths = sourceFiles(root).map((file) => file.path);
    const clang = await clangFormat(root, paths.filter(isCpp), ["-i"]);
    return biome === 0 && clang === 0 ? 0 : 1;
  } catch (error) {
    if (!(error instanceof SetupError)) throw error;
    say(`tempora: ${error.message}`);
    return 1;
  }
}

process.exitCode = await main();
