import { join } from "node:path";
import { isThere } from "@tempora/errors";
import { noRunFolder, PageFeed } from "@tempora/report";
import type { Command } from "commander";
import type { Context } from "../context.ts";
import { newCommand, whenCalled } from "../options.ts";
import { addPageOptions, type PageFlags, servePage } from "../page-server.ts";

export function watchCommand(context: Context): Command {
  const command = newCommand("watch", "The report as a page that follows its run; several runs side by side", [
    "watch runs/world-temporal",
    "watch runs/one runs/other --port 8080",
  ]).argument("<runs...>", "folders of runs, finished or not");
  addPageOptions(command);
  return whenCalled(command, context, watch);
}

async function watch(flags: PageFlags, context: Context, folders: readonly string[]): Promise<void> {
  for (const folder of folders) {
    const files = ["run.json", "events.jsonl"].map((name) => join(folder, name));
    if (files.some((file) => isThere(file, "Cannot read the run"))) continue;
    throw noRunFolder(folder);
  }
  const feed = new PageFeed({ folders });
  // A run that cannot be read is said here, not on the page.
  await feed.html();
  const page = await servePage(feed, flags);
  context.result({ url: page.url }, `${page.url} shows ${folders.join(", ")}; Ctrl-C stops it`);
  if (!context.signal.aborted) {
    await new Promise<void>((resolve) => {
      context.signal.addEventListener("abort", () => resolve(), { once: true });
    });
  }
  await page.close();
}
