// Makes a fresh clone ready: packages, system packages, the native addon. Runs before every command and does nothing,
// quickly, when nothing is to be done. With --packages it leaves out the addon. It runs before anything is installed,
// so it may import built-in modules only.
import { join } from "node:path";
import { addonIsBuilt, buildAddon } from "./setup/addon.ts";
import { root, SetupError, say } from "./setup/command.ts";
import { withLock } from "./setup/lock.ts";
import { installWorkspace, workspaceIsInstalled } from "./setup/workspace.ts";

function isReady(withAddon: boolean): boolean {
  return workspaceIsInstalled(root) && (!withAddon || addonIsBuilt(root));
}

async function setUp(withAddon: boolean): Promise<void> {
  // Asked again inside the lock: another process may have done the work meanwhile.
  if (!workspaceIsInstalled(root)) {
    say("tempora: installing packages from bun.lock");
    await installWorkspace(root);
  }
  if (withAddon && !addonIsBuilt(root)) await buildAddon(root);
}

async function main(withAddon: boolean): Promise<number> {
  if (isReady(withAddon)) return 0;
  const waiting = () => say("tempora: waiting for another set-up to end");
  try {
    await withLock(join(root, ".tempora/setup.lock"), waiting, () => setUp(withAddon));
    return 0;
  } catch (error) {
    if (!(error instanceof SetupError)) throw error;
    say(`tempora: ${error.message}`);
    return 1;
  }
}

process.exitCode = await main(!process.argv.includes("--packages"));
