/**
 * Makes the tarballs that others install: the packages as JavaScript with types, and the addon of this platform. They go to
 * packed/, ready for `npm install packed/*.tgz` or `npm publish`. With --cuda also the addon with the CUDA backend, to packed/cuda.
 */
import { execFileSync } from "node:child_process";
import { mkdir, readdir, readFile, rm, stat } from "node:fs/promises";
import { join, relative } from "node:path";
import { parseArgs } from "node:util";
import { packJavaScript } from "./pack/javascript.ts";
import { type CudaToolkit, cudaPackage, cudaToolkit, packNative, platformPackage } from "./pack/native.ts";
import { root } from "./setup/command.ts";

const work = join(root, ".tempora", "pack");
const out = join(root, "packed");
const { version } = JSON.parse(await readFile(join(root, "package.json"), "utf8")) as { version: string };

const { values } = parseArgs({ options: { cuda: { type: "boolean", default: false } } });
// First: what is missing is not to be told after minutes of building.
const toolkit = values.cuda ? cudaToolkit() : null;

/** The folder of the platform's package. */
async function native(name: string, cuda: CudaToolkit | null): Promise<string> {
  const folder = join(work, "native", name.replace("@tempora/", ""));
  await packNative(folder, version, cuda);
  return folder;
}

const targets = [
  {
    to: out,
    folders: [await native(platformPackage, null), ...(await packJavaScript(join(work, "javascript"), version))],
  },
  ...(toolkit === null ? [] : [{ to: join(out, "cuda"), folders: [await native(cudaPackage, toolkit)] }]),
];
await rm(out, { recursive: true, force: true });
for (const { to, folders } of targets) {
  await mkdir(to, { recursive: true });
  for (const folder of folders) {
    execFileSync("npm", ["pack", "--silent", "--pack-destination", to], {
      cwd: folder,
      stdio: ["ignore", "ignore", "inherit"],
    });
  }
  for (const name of (await readdir(to)).filter((file) => file.endsWith(".tgz")).sort()) {
    const { size } = await stat(join(to, name));
    console.log(`${(size / 2 ** 20).toFixed(2).padStart(7)} MiB  ${relative(root, join(to, name))}`);
  }
}
