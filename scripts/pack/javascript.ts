/** The workspace's packages as JavaScript with types, as they are installed. */
import { execFileSync } from "node:child_process";
import { chmod, copyFile, cp, mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { codeVersion } from "../../packages/run/src/store/code-version.ts";
import { root } from "../setup/command.ts";
import { platformPackage } from "./native.ts";

/** Of the workspace alone. */
const unpacked = ["testing"];
/** Node strips types from a configuration, and has SQLite, from here on. */
const oldestNode = "22.18.0";

interface Manifest {
  name: string;
  version: string;
  exports: string | Record<string, string>;
  bin?: Record<string, string>;
  dependencies?: Record<string, string>;
  [field: string]: unknown;
}

/** Makes a folder for each package below `folder`; returns them. */
export async function packJavaScript(folder: string, version: string): Promise<string[]> {
  const names = (await readdir(join(root, "packages"))).filter((name) => !unpacked.includes(name));
  const output = join(folder, "compiled");
  await rm(folder, { recursive: true, force: true });
  await compile(output);
  const code = await codeVersion(root);
  const folders: string[] = [];
  for (const name of names) {
    const from = join(root, "packages", name);
    const to = join(folder, name);
    const dist = join(to, "dist");
    await mkdir(to, { recursive: true });
    await cp(join(output, name, "src"), dist, {
      recursive: true,
      filter: (path) => !/(\/testing(\/|\.|$))/.test(path),
    });
    const assets = join(from, "page");
    await cp(assets, join(to, "page"), { recursive: true }).catch(ignoreMissing);
    const manifest = JSON.parse(await readFile(join(from, "package.json"), "utf8")) as Manifest;
    await writeFile(join(to, "package.json"), `${JSON.stringify(packed(manifest, { version, code }), null, 2)}\n`);
    await writeFile(
      join(to, "README.md"),
      `# ${manifest.name}\n\nA part of Tempora: temporal self-rewarding training of language models.\n`,
    );
    await copyFile(join(root, "LICENSE"), join(to, "LICENSE"));
    for (const script of Object.values(manifest.bin ?? {})) await makeProgram(join(to, compiled(script, ".js")));
    folders.push(to);
  }
  await rm(output, { recursive: true, force: true });
  return folders;
}

/** JavaScript that Node runs (no `using`), with declarations, each file where its source was. */
async function compile(output: string): Promise<void> {
  await mkdir(output, { recursive: true });
  const config = join(output, "tsconfig.json");
  const options = {
    extends: join(root, "tsconfig.json"),
    compilerOptions: {
      ...{ target: "ES2023", noEmit: false, declaration: true, rewriteRelativeImportExtensions: true },
      ...{ rootDir: join(root, "packages"), outDir: output, typeRoots: [join(root, "node_modules")] },
    },
    include: [join(root, "packages/*/src")],
    exclude: ["**/*.test.ts", "**/testing/**", "**/tiny.ts", join(root, "packages/testing")].map((path) =>
      path.startsWith("/") ? path : join(root, "packages", path),
    ),
  };
  await writeFile(config, JSON.stringify(options));
  execFileSync(process.execPath, [join(root, "node_modules/typescript/bin/tsc"), "--project", config], {
    stdio: "inherit",
  });
}

function compiled(source: string, ending: ".js" | ".d.ts"): string {
  return source.replace("./src/", "./dist/").replace(/\.ts$/, ending);
}

/** The manifest that is published: built files, versions in the workspace's place, no development. */
function packed(manifest: Manifest, { version, code }: { version: string; code: string }): Record<string, unknown> {
  const { exports, bin, dependencies = {}, devDependencies: _, private: __, ...rest } = manifest;
  const entries = typeof exports === "string" ? { ".": exports } : exports;
  const versions = Object.entries(dependencies).map(([name, range]) => [
    name,
    range.startsWith("workspace:") ? version : range,
  ]);
  return {
    ...rest,
    version,
    engines: { node: `>=${oldestNode}`, bun: ">=1.4.5" },
    exports: Object.fromEntries(
      Object.entries(entries).map(([name, source]) => [
        name,
        { types: compiled(source, ".d.ts"), default: compiled(source, ".js") },
      ]),
    ),
    ...(bin === undefined
      ? {}
      : { bin: Object.fromEntries(Object.entries(bin).map(([name, script]) => [name, compiled(script, ".js")])) }),
    files: ["dist", "page", "README.md", "LICENSE"],
    dependencies: Object.fromEntries(versions),
    ...(manifest.name === "@tempora/engine" ? { optionalDependencies: { [platformPackage]: version } } : {}),
    ...(manifest.name === "@tempora/run" ? { tempora: { code } } : {}),
  };
}

/** Node 22 warns of its SQLite, which works: the warning would stand above every command. */
async function makeProgram(file: string): Promise<void> {
  const text = (await readFile(file, "utf8")).replace(/^#!.*\n/, "");
  await writeFile(file, `#!/usr/bin/env -S node --disable-warning=ExperimentalWarning\n${text}`);
  await chmod(file, 0o755);
}

function ignoreMissing(error: unknown): void {
  if (!(error instanceof Error && "code" in error && error.code === "ENOENT")) throw error;
}
