import { readFile } from "node:fs/promises";
import { basename, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { writeWhole } from "@tempora/text";
import { type Chart, chartsOf } from "./charts.ts";
import { escapeHtml } from "./html.ts";
import type { SettingDifferences } from "./live/side-by-side.ts";
import { bodyHtml, type PagePair, pagePairs, scriptJson } from "./page.ts";
import { type Run, readRun } from "./run-folder.ts";

/** Reads a run folder and writes its report.html: one file that needs no network. Returns its path. */
export async function writeReport(runFolder: string): Promise<string> {
  const html = await renderReport(await readRun(runFolder));
  const file = join(runFolder, "report.html");
  await writeWhole(file, html);
  return file;
}

/** What of a page follows its run: the HTML of its body, and what its script draws from. */
export interface PageContent {
  name: string;
  body: string;
  charts: Chart[];
  pairs: PagePair[];
}

/** @param differences the settings that are not the same in the runs that the page puts side by side */
export function pageContent(run: Run, differences: SettingDifferences | null = null): PageContent {
  const name = run.folder.includes(", ") ? run.folder : basename(resolve(run.folder));
  const charts = chartsOf(run);
  return { name, body: bodyHtml(name, run, charts, differences), charts, pairs: pagePairs(run.pairs) };
}

/** The whole page: styles, charts library, data and script inlined. */
export async function renderReport(run: Run): Promise<string> {
  return renderPage(pageContent(run), { live: false });
}

/** @param live whether the page listens to "events" beside it, where the server of a run tells what is new */
export async function renderPage(content: PageContent, { live }: { live: boolean }): Promise<string> {
  const { name, body, charts, pairs } = content;
  const [css, library, script] = await Promise.all([
    readFile(fileURLToPath(new URL("../page/page.css", import.meta.url)), "utf8"),
    readFile(fileURLToPath(import.meta.resolve("echarts/dist/echarts.min.js")), "utf8"),
    readFile(fileURLToPath(new URL("../page/page.js", import.meta.url)), "utf8"),
  ]);
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escapeHtml(name)} · Tempora</title>
<link rel="icon" href="data:,">
<style>${css}</style>
</head>
<body>
${body}
<script type="application/json" id="run-data">${scriptJson({ live, charts, pairs })}</script>
<script>${inlineScript(library)}</script>
<script>${inlineScript(script)}</script>
</body>
</html>
`;
}

/** A string in a script that holds "</script" would end its element. */
function inlineScript(source: string): string {
  return source.replaceAll("</script", "<\\/script");
}
