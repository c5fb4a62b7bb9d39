import { existsSync, readFileSync, rmSync } from "node:fs";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { run, SetupError, say } from "./command.ts";
import { contentHash, filesUnder, readStamp, writeStamp } from "./stamp.ts";
import { buildNeeds, ensureSystemPackages } from "./system-packages.ts";

/** AUTO, ON or OFF, by the environment variable of the same name. */
function cudaSetting(): string {
  return process.env.TEMPORA_CUDA ?? "AUTO";
}

export function addonFile(root: string): string {
  return join(root, "native/build/Release/tempora.node");
}

/** A hash of everything that the addon is made of. */
export function addonStamp(root: string): string {
  const native = join(root, "native");
  const files = filesUnder(
    join(native, "CMakeLists.txt"),
    join(native, "package.json"),
    join(native, "cmake"),
    join(native, "src"),
  );
  const toolkit = process.env.CUDACXX ?? Bun.which("nvcc") ?? "no nvcc";
  const { CXX = "", CMAKE_PREFIX_PATH = "" } = process.env;
  const facts = [process.platform, process.arch, CXX, CMAKE_PREFIX_PATH, toolkit, cudaSetting()];
  return contentHash(root, files, facts);
}

function stampFile(root: string): string {
  return join(root, "native/build/addon-stamp");
}

export function addonIsBuilt(root: string): boolean {
  return existsSync(addonFile(root)) && readStamp(stampFile(root)) === addonStamp(root);
}

/** CMake refuses a cache that was made in another folder, as it is in a copied or moved checkout. */
function dropForeignCache(root: string): void {
  const cache = join(root, "native/build/CMakeCache.txt");
  if (!existsSync(cache)) return;
  const home = /^CMAKE_HOME_DIRECTORY:INTERNAL=(.*)$/m.exec(readFileSync(cache, "utf8"))?.[1];
  if (home !== join(root, "native")) rmSync(join(root, "native/build"), { recursive: true });
}

async function cmakeJs(root: string, args: readonly string[]): Promise<void> {
  const native = join(root, "native");
  const script = join(native, "node_modules/cmake-js/bin/cmake-js");
  const command = [process.execPath, script, ...args, "--directory", native, "--log-level", "warn"];
  const code = await run(command, { cwd: native });
  if (code !== 0) {
    throw new SetupError(
      `The native engine could not be built (cmake-js ${args[0]}: exit code ${code}, see above). When a compiler or ` +
        "library was changed since the last build, delete native/build and run the command again.",
    );
  }
}

/** Loads the addon in a process of its own, so that one that crashes does not take the set-up with it. */
function checkThatItLoads(root: string): void {
  const script = `process.dlopen({ exports: {} }, ${JSON.stringify(addonFile(root))})`;
  // LD_BIND_NOW: a missing function is found now, not when it is first called.
  const child = Bun.spawnSync([process.execPath, "-e", script], { env: { ...process.env, LD_BIND_NOW: "1" } });
  if (child.exitCode === 0) return;
  const reason = /^error: (.*)$/m.exec(child.stderr.toString())?.[1] ?? `the process ended by ${child.signalCode}`;
  throw new SetupError(
    `The native engine was built but does not load: ${reason}. When a library was changed since the last build, delete ` +
      "native/build and run the command again.",
  );
}

/** Builds the addon, after installing what that takes. Also configures the targets of the native tests and benches. */
export async function buildAddon(root: string): Promise<void> {
  await ensureSystemPackages(buildNeeds);
  const stamp = addonStamp(root);
  const start = performance.now();
  say("tempora: building the native engine (once; a few minutes on a small machine)");
  dropForeignCache(root);
  await cmakeJs(root, ["configure", "--generator", "Ninja", `--CDTEMPORA_CUDA=${cudaSetting()}`]);
  await cmakeJs(root, ["build", "--target", "tempora", "--parallel", String(availableParallelism())]);
  checkThatItLoads(root);
  writeStamp(stampFile(root), stamp);
  say(`tempora: built in ${((performance.now() - start) / 1000).toFixed(0)} s`);
}
