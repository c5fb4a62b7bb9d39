import { join } from "node:path";
import { run, SetupError } from "../setup/command.ts";
import { ensureSystemPackages, installCommand, missingPackages, thisSystem } from "../setup/system-packages.ts";

export function runTool(root: string, tool: string, args: readonly string[]): Promise<number> {
  return run([process.execPath, join(root, "node_modules", tool), ...args], { cwd: root, stdout: "inherit" });
}

/** Runs clang-format over the files; in CI it is installed where that is allowed. */
export async function clangFormat(root: string, files: readonly string[], args: readonly string[]): Promise<number> {
  if (process.env.CI) await ensureSystemPackages(["clang-format"]);
  if (missingPackages(["clang-format"]).length > 0) {
    throw new SetupError(
      `C++ formatting was not looked at: clang-format is missing. To install:\n\n    ` +
        `${installCommand(["clang-format"], thisSystem())}\n`,
    );
  }
  return run(["clang-format", ...args, ...files], { cwd: root, stdout: "inherit" });
}
