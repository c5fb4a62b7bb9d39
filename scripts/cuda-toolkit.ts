/**
 * Fetches a CUDA toolkit for compiling only (no driver, no device) from NVIDIA's wheels on PyPI into the user's cache,
 * and prints its folder. `TEMPORA_CUDA=ON CUDACXX=<folder>/bin/nvcc bun run build` then compiles the CUDA backend.
 * With --find it fetches nothing and prints the nvcc that this machine has, if any.
 */
import { existsSync } from "node:fs";
import { chmod, mkdir, readdir, rename, rm, symlink, writeFile } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import { fetchWheel, type WheelFile } from "./pypi.ts";

/** Wheels of one toolkit release; their versions differ, as NVIDIA publishes them. */
const wheels: readonly (readonly [name: string, version: string])[] = [
  ["nvidia-cuda-nvcc", "13.0.88"],
  ["nvidia-cuda-crt", "13.0.88"],
  ["nvidia-nvvm", "13.0.88"],
  ["nvidia-cuda-runtime", "13.0.96"],
  ["nvidia-cuda-cccl", "13.0.85"],
  ["nvidia-cublas", "13.0.2.14"],
];

/** Where the toolkit lies once fetched: `$XDG_CACHE_HOME/tempora/cuda-13.0/nvidia/cu13`. */
export function cudaToolkitFolder(): string {
  const cache = process.env.XDG_CACHE_HOME ?? join(homedir(), ".cache");
  return join(cache, "tempora", "cuda-13.0", "nvidia", "cu13");
}

/** This machine's nvcc: CUDACXX, the one on PATH, the usual folder of an installation, or a toolkit fetched before. */
export function findNvcc(environment: Record<string, string | undefined> = process.env): string | null {
  if (environment.CUDACXX) return environment.CUDACXX;
  const onPath = (environment.PATH ?? "").split(":").map((folder) => join(folder, "nvcc"));
  const usual = ["/usr/local/cuda/bin/nvcc", join(cudaToolkitFolder(), "bin/nvcc")];
  return [...onPath, ...usual].find((file) => existsSync(file)) ?? null;
}

/** The wheel of one version for this machine, among all files of a package. */
export function chooseWheel(files: readonly WheelFile[], version: string, architecture: string): WheelFile {
  const tag = architecture === "arm64" ? "aarch64" : "x86_64";
  const file = files.find(
    ({ filename }) =>
      filename.includes(`-${version}-`) && filename.includes("manylinux") && filename.endsWith(`_${tag}.whl`),
  );
  if (file === undefined) throw new Error(`PyPI has no wheel of version ${version} for Linux ${tag}`);
  return file;
}

/** Fetches the toolkit unless it is there; whole or not at all. Returns its folder. */
export async function fetchCudaToolkit(): Promise<string> {
  const toolkit = cudaToolkitFolder();
  const root = join(toolkit, "..", "..");
  if (existsSync(join(root, "complete"))) return toolkit;
  const partial = `${root}.partial`;
  await rm(partial, { recursive: true, force: true });
  await mkdir(partial, { recursive: true });
  for (const [name, version] of wheels) {
    await fetchWheel(name, partial, (files) => chooseWheel(files, version, process.arch));
  }
  const fresh = join(partial, "nvidia", "cu13");
  // Wheels carry no permission bits, and nvcc looks for lib64.
  for (const programs of [join(fresh, "bin"), join(fresh, "nvvm", "bin")]) {
    for (const program of await readdir(programs)) await chmod(join(programs, program), 0o755);
  }
  if (!existsSync(join(fresh, "lib64"))) await symlink("lib", join(fresh, "lib64"));
  await writeFile(join(partial, "complete"), "");
  await rm(root, { recursive: true, force: true });
  await rename(partial, root);
  return toolkit;
}

if (import.meta.main) {
  if (process.argv.includes("--find")) {
    const nvcc = findNvcc();
    if (nvcc !== null) console.log(nvcc);
    process.exitCode = nvcc === null ? 1 : 0;
  } else {
    console.log(await fetchCudaToolkit());
  }
}
