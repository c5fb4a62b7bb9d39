/**
 * Fetches llama.cpp as node-llama-cpp from npm, with its binary for the CPU of this platform, for the tests that open exported
 * files in it and as a peer of the benchmark, into the user's cache. Prints its folder. Whole or not at all; when it is
 * there already nothing is fetched.
 */
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdir, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { llamaCppFolder, llamaCppVersion } from "../packages/testing/src/llama-cpp.ts";

/** The package's optional dependencies hold binaries for every GPU too, 640 MB of them; where there is none for the CPU alone they all come. */
const cpuBinaries: Readonly<Record<string, string>> = {
  "linux-x64": "@node-llama-cpp/linux-x64",
  "linux-arm64": "@node-llama-cpp/linux-arm64",
};

async function fetchLlamaCpp(target: string): Promise<void> {
  const partial = `${target}.${process.pid}.partial`;
  await mkdir(partial, { recursive: true });
  try {
    await writeFile(join(partial, "package.json"), JSON.stringify({ private: true, type: "module" }));
    const binary = cpuBinaries[`${process.platform}-${process.arch}`];
    const names = [`node-llama-cpp@${llamaCppVersion}`];
    if (binary !== undefined) names.push("--omit=optional", `${binary}@${llamaCppVersion}`);
    const flags = ["--silent", "--ignore-scripts", "--no-audit", "--no-fund"];
    const { status } = spawnSync("npm", ["install", ...flags, ...names], { cwd: partial, stdio: "inherit" });
    if (status !== 0) throw new Error(`npm could not install ${names[0]}: install Node.js with npm, check the network`);
    await rename(partial, target);
  } finally {
    await rm(partial, { recursive: true, force: true });
  }
}

const target = llamaCppFolder();
if (!existsSync(target)) await fetchLlamaCpp(target);
console.log(target);
