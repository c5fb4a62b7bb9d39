/**
 * Makes the tarballs that others install: the packages as JavaScript with types, and the addon of this platform. They go to
 * packed/, ready for `npm install packed/*.tgz` or `npm publish`.
 */
import { execFileSync } from "node:child_process";
import { mkdir, readdir, readFile, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { packJavaScript } from "./pack/javascript.ts";
import { packNative, platformPackage } from "./pack/native.ts";
import { root } from "./setup/command.ts";

const work = join(root, ".tempora", "pack");
const out = join(root, "packed");
const { version } = JSON.parse(await readFile(join(root, "package.json"), "utf8")) as { version: string };

const native = join(work, "native", platformPackage.replace("@tempora/", ""));
await packNative(native, version);
const folders = await packJavaScript(join(work, "javascript"), version);
await rm(out, { recursive: true, force: true });
await mkdir(out, { recursive: true });
for (const folder of [native, ...folders]) {
  execFileSync("npm", ["pack", "--silent", "--pack-destination", out], {
    cwd: folder,
    stdio: ["ignore", "ignore", "inherit"],
  });
}
for (const name of (await readdir(out)).sort()) {
  const { size } = await stat(join(out, name));
  console.log(`${(size / 2 ** 20).toFixed(2).padStart(7)} MiB  packed/${name}`);
}
