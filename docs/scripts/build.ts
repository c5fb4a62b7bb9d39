/** Builds the site into docs/.vitepress/dist: the settings' page from their schema, the API's pages by TypeDoc, and VitePress. */
import { spawnSync } from "node:child_process";
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { settingsPage } from "./settings.ts";

const docs = fileURLToPath(new URL("..", import.meta.url));
const reference = join(docs, "reference");

function call(program: string, ...args: string[]): void {
  const { status } = spawnSync(process.execPath, [join(docs, "node_modules", program), ...args], {
    cwd: docs,
    stdio: "inherit",
  });
  if (status !== 0) process.exit(status ?? 1);
}

/** TypeDoc names a module after its folders ("engine.src"); users know it by its package. */
function nameByPackage(folder: string): void {
  for (const name of readdirSync(folder)) {
    const text = readFileSync(join(folder, name), "utf8");
    rmSync(join(folder, name));
    if (name === "index.md" || !name.endsWith(".md")) continue;
    const named = text.replace(/^# (\w+)\/src$/m, "# @tempora/$1").replace(/\b(\w+)\.src\.md/g, "$1.md");
    writeFileSync(join(folder, name.replace(".src.md", ".md")), named);
  }
}

rmSync(reference, { recursive: true, force: true });
mkdirSync(reference, { recursive: true });
writeFileSync(join(reference, "settings.md"), settingsPage());
call("typedoc/bin/typedoc", "--options", "typedoc.json");
nameByPackage(join(reference, "api"));
call("vitepress/bin/vitepress.js", "build");
