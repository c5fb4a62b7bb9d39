/** The addon for machines that build nothing: one package a platform. */
import { execFileSync } from "node:child_process";
import { existsSync, rmSync } from "node:fs";
import { copyFile, mkdir, rm, writeFile } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { dirname, join } from "node:path";
import { findNvcc } from "../cuda-toolkit.ts";
import { root } from "../setup/command.ts";
import { buildNeeds, ensureSystemPackages } from "../setup/system-packages.ts";
import { type PackTools, packTools } from "./tools.ts";

/** The C library of RHEL 8, Debian 10 and all that came later. */
const newestGlibc = "2.28";

export const platformPackage = "@tempora/linux-x64-gnu";
/** The same addon with the CUDA backend too; where it is installed, it is the one that is loaded. */
export const cudaPackage = `${platformPackage}-cuda`;

/** What there is of a CUDA toolkit. */
export interface CudaToolkit {
  nvcc: string;
  /** The runtime, which goes into the addon; cuBLASLt is opened when a device is first used. */
  runtime: string;
}

/** Makes the folder of the platform's package: of that with CUDA where a toolkit is given. */
export async function packNative(folder: string, version: string, toolkit: CudaToolkit | null): Promise<void> {
  if (process.platform !== "linux" || process.arch !== "x64") {
    throw new Error(
      "The addon is packed on Linux on x64 only, for that platform; packages for others are not made yet",
    );
  }
  await ensureSystemPackages(buildNeeds);
  const tools = await packTools();
  await rm(folder, { recursive: true, force: true });
  await mkdir(folder, { recursive: true });
  const dnnl = join(folder, "libdnnl.so.3");
  const gomp = join(folder, "libgomp.so.1");
  await copyFile(tools.dnnl, dnnl);
  await copyFile(tools.gomp, gomp);
  run(tools.patchelf, ["--set-soname", "libgomp.so.1", gomp]);
  run("strip", [dnnl]);
  run(tools.patchelf, ["--set-rpath", "$ORIGIN", dnnl]);
  const objects = buildObjects(tools, toolkit);
  if (toolkit !== null) objects.push(toolkit.runtime, "-lrt", "-lpthread", "-ldl");
  link(tools, objects, { dnnl, gomp }, join(folder, "tempora.node"));
  for (const file of ["tempora.node", "libdnnl.so.3", "libgomp.so.1"]) checkSymbols(join(folder, file));
  await writeFile(join(folder, "package.json"), `${JSON.stringify(manifest(version, toolkit !== null), null, 2)}\n`);
  await writeFile(join(folder, "README.md"), readme(toolkit !== null));
  await copyFile(join(root, "LICENSE"), join(folder, "LICENSE"));
}

/** @throws where there is none, or one without the static runtime. */
export function cudaToolkit(): CudaToolkit {
  const nvcc = findNvcc();
  if (nvcc === null) {
    throw new Error("The package with CUDA wants nvcc, on the path, by CUDACXX, or from bun scripts/cuda-toolkit.ts");
  }
  const home = dirname(dirname(nvcc));
  const places = ["lib", "lib64", "targets/x86_64-linux/lib"].map((name) => join(home, name, "libcudart_static.a"));
  const runtime = places.find((file) => existsSync(file));
  if (runtime === undefined) throw new Error(`${nvcc} has no libcudart_static.a beside it: ${places.join(", ")}`);
  return { nvcc, runtime };
}

function manifest(version: string, cuda: boolean) {
  return {
    name: cuda ? cudaPackage : platformPackage,
    version,
    description: `Tempora's native engine for Linux on x64 (glibc 2.28 or newer)${cuda ? ", with CUDA" : ""}`,
    license: "Apache-2.0",
    os: ["linux"],
    cpu: ["x64"],
    libc: ["glibc"],
    main: "tempora.node",
    files: ["tempora.node", "libdnnl.so.3", "libgomp.so.1", "README.md", "LICENSE"],
  };
}

function readme(cuda: boolean): string {
  const device = `
Its CUDA backend is for GPUs from sm_80 on, with a driver for CUDA 13 and cuBLASLt 13 (libcublasLt.so.13, of the CUDA toolkit or of
NVIDIA's package nvidia-cublas for Python) where the loader finds it. Without them it works on the CPU, and \`tempora doctor\` says
what is missing.
`;
  return `# ${cuda ? cudaPackage : platformPackage}

Tempora's native engine, which \`@tempora/engine\` loads. Beside it lie oneDNN 3.2 (libdnnl.so.3, Apache-2.0, Intel's build) and GNU's
OpenMP library (libgomp.so.1, GPL 3 with the GCC runtime library exception). It needs glibc 2.28 and the C++ library that
Node itself needs (libstdc++.so.6, for oneDNN).
${cuda ? device : ""}`;
}

/** Compiles everything but the last link. Returns the objects and libraries to link. */
function buildObjects({ dnnlIncludes, dnnl }: PackTools, toolkit: CudaToolkit | null): string[] {
  const native = join(root, "native");
  const build = join(native, toolkit === null ? "build-portable" : "build-portable-cuda");
  const cmakeJs = [join(native, "node_modules/cmake-js/bin/cmake-js"), "--directory", native, "--out", build];
  const settings = {
    TEMPORA_CUDA: toolkit === null ? "OFF" : "ON",
    DNNL_INCLUDE_DIR: dnnlIncludes,
    DNNL_LIBRARY: dnnl,
    ...(toolkit === null ? {} : { CMAKE_CUDA_COMPILER: toolkit.nvcc }),
  };
  const options = Object.entries(settings).map(([name, value]) => `--CD${name}=${value}`);
  run(process.execPath, [...cmakeJs, "configure", "--generator", "Ninja", "--log-level", "warn", ...options]);
  const parallel = ["--parallel", String(availableParallelism())];
  run(process.execPath, [...cmakeJs, "build", "--target", "tempora", "--log-level", "warn", ...parallel]);
  const objects = execFileSync("ninja", ["-C", build, "-t", "inputs", "Release/tempora.node"], { encoding: "utf8" })
    .split("\n")
    .filter((name) => /^CMakeFiles\/tempora\.dir\/.*\.o$/.test(name));
  return [...objects.map((name) => join(build, name)), join(build, "libtempora_engine.a")];
}

/**
 * The C++ library goes in whole; the C library's symbols are asked for as the oldest one has them, which a linker takes that knows
 * them all.
 */
function link(
  { zig }: PackTools,
  objects: readonly string[],
  { dnnl, gomp }: { dnnl: string; gomp: string },
  out: string,
): void {
  const target = ["-target", `x86_64-linux-gnu.${newestGlibc}`];
  const shim = `${out}.o`;
  run(zig, ["cc", ...target, "-fPIC", "-O2", "-c", join(root, "native/portable/older_glibc.c"), "-o", shim]);
  const own = (name: string) => execFileSync("c++", [`-print-file-name=${name}`], { encoding: "utf8" }).trim();
  run(zig, [
    ...["cc", ...target, "-shared", "-Wl,-soname,tempora.node", "-Wl,-rpath,$ORIGIN", "-o", out],
    ...objects,
    ...[shim, own("libstdc++.a"), own("libgcc_eh.a"), own("libgcc.a"), dnnl, gomp, "-lm"],
  ]);
  rmSync(shim);
  run("strip", ["--strip-unneeded", out]);
}

/** @throws where a symbol of a newer C library is asked for. */
function checkSymbols(file: string): void {
  const symbols = execFileSync("objdump", ["-T", file], { encoding: "utf8", maxBuffer: 2 ** 28 });
  const [, newest] = newestGlibc.split(".").map(Number) as [number, number];
  for (const line of symbols.split("\n")) {
    const minor = Number(/GLIBC_2\.(\d+)/.exec(line)?.[1] ?? 0);
    if (minor > newest || (line.includes("*UND*") && line.includes("_dl_find_object"))) {
      throw new Error(`${file} asks for more than glibc ${newestGlibc} has: ${line.trim()}`);
    }
  }
}

function run(program: string, args: readonly string[]): void {
  execFileSync(program, args, { stdio: ["ignore", "inherit", "inherit"] });
}
