import { join } from "node:path";
import { run, SetupError } from "./command.ts";
import { contentHash, filesUnder, readStamp, writeStamp } from "./stamp.ts";

function manifests(root: string): string[] {
  return [...new Bun.Glob("{package.json,bun.lock,native/package.json,packages/*/package.json}").scanSync(root)]
    .map((path) => join(root, path))
    .sort();
}

function stampFile(root: string): string {
  return join(root, "node_modules", ".tempora-stamp");
}

/** Whether node_modules was installed from the lockfile and manifests as they are now. */
export function workspaceIsInstalled(root: string): boolean {
  return readStamp(stampFile(root)) === contentHash(root, filesUnder(...manifests(root)));
}

export async function installWorkspace(root: string): Promise<void> {
  const code = await run([process.execPath, "install", "--frozen-lockfile"], { cwd: root });
  if (code !== 0) {
    throw new SetupError(
      "The packages could not be installed (bun install --frozen-lockfile, see above). If a package.json was changed, " +
        "run `bun install` and commit bun.lock; otherwise check the network and run the command again.",
    );
  }
  writeStamp(stampFile(root), contentHash(root, filesUnder(...manifests(root))));
}
