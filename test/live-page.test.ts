import { cpSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import type { EventRow, RunResult } from "@tempora/run";
import { readLines, scratch } from "@tempora/testing";
import type { Page } from "playwright-core";
import { expect, vi } from "vitest";
import { testInBrowser } from "./support/browser.ts";
import { type Running, startTempora } from "./support/cli.ts";
import { tinyConfig } from "./support/tiny-run.ts";

// Three iterations in a process that is killed after the first, then two finished runs side by side.
vi.setConfig({ testTimeout: 300_000 });

const folder = await scratch();
const runs = join(folder, "runs");
const run = join(runs, "watched");
const config = join(folder, "two.config.ts");
writeFileSync(config, `export default ${JSON.stringify({ ...tinyConfig, iterations: 3 })};\n`);

interface ShownData {
  charts: { id: string; series: { name: string; points: number[][] }[] }[];
  pairs: { strategy: string }[];
}

const shown = (page: Page) => page.evaluate("data") as Promise<ShownData>;
const result = () => JSON.parse(readFileSync(join(run, "run.json"), "utf8")) as RunResult;

/**
 * The page holds what the files hold: steps by events.jsonl, models by run.json, in its charts and its table. A run that was
 * killed wrote its last steps, or its last model, after the page had looked.
 */
async function expectFigures(page: Page, killed: boolean): Promise<void> {
  const { charts } = await shown(page);
  const [strategy] = result().strategies;
  const losses = (readLines(join(run, "events.jsonl")) as unknown as EventRow[]).flatMap((row) =>
    row.event === "step" && row.strategy === strategy?.name ? [row.loss] : [],
  );
  const points = (id: string) => charts.find((chart) => chart.id === id)?.series[0]?.points.map(([, y]) => y);
  const steps = points("loss");
  expect(steps).toEqual(losses.slice(0, killed ? steps?.length : undefined));
  expect(steps?.length).toBeGreaterThan(0);
  const scores = points("true-score");
  const models = strategy?.models.slice(0, killed ? scores?.length : undefined) ?? [];
  expect(scores).toEqual(models.map(({ trueScore }) => trueScore?.mean));
  // M1 was in the table before the run was killed, and its charts come with it.
  expect(models.length).toBeGreaterThan(1);
  const table = await page.locator('[data-part="result-table"]').textContent();
  for (const model of models) expect(table).toContain(model.heldOutScore.mean.toFixed(2));
}

/** The address that the run tells; a run that is resumed is asked for the same one. */
async function start(port: string): Promise<{ running: Running; url: string }> {
  const running = startTempora([
    "train",
    config,
    "--runs",
    runs,
    "--run",
    "watched",
    "--strategy",
    "temporal",
    "--port",
    port,
  ]);
  const told = await running.tells("shown at http://127.0.0.1:");
  return { running, url: /shown at (\S+:\d+)/.exec(told)?.[1] as string };
}

async function screenshot(page: Page, name: string): Promise<void> {
  const target = process.env.TEMPORA_SCREENSHOTS ?? folder;
  await page.screenshot({ path: join(target, `${name}.png`) });
}

testInBrowser("a run is seen at its start, middle and end, through a kill, and beside itself", async (browser) => {
  const page = await browser.newPage({ viewport: { width: 1280, height: 1700 } });
  const asked = new Set<string>();
  const faults: string[] = [];
  page.on("request", (request) => asked.add(new URL(request.url()).host));
  page.on("pageerror", (error) => faults.push(error.message));

  const first = await start("0");
  await page.goto(first.url);
  await page.locator("#live progress").first().waitFor();
  expect(await page.locator("#live").textContent()).toMatch(/of \d+ (steps|answers|judgements|rows)/);
  await screenshot(page, "start");

  const table = page.locator('[data-part="result-table"]');
  await table.getByText("M1").waitFor({ timeout: 200_000 });
  // At once: drawing a screenshot can take longer than an iteration.
  first.running.child.kill("SIGKILL");
  expect((await first.running.done).code).toBeNull();
  const before = (await shown(page)).pairs.length;
  expect(before).toBeGreaterThan(0);
  await screenshot(page, "middle");
  await page.getByText("The run does not answer").waitFor();
  await expectFigures(page, true);

  await page.locator("#pair-search").fill("a");
  const second = await start(new URL(first.url).port);
  await table.getByText("M3").waitFor({ timeout: 200_000 });
  expect((await second.running.done).code).toBe(0);
  await page.getByText("still running").waitFor({ state: "hidden" });
  await expectFigures(page, false);
  expect((await shown(page)).pairs.length).toBeGreaterThan(before);
  // What was searched for stays.
  expect(await page.locator("#pair-search").inputValue()).toBe("a");
  expect(await page.locator("#live").isHidden()).toBe(true);
  await screenshot(page, "end");

  await chartByKeys(page);
  await phoneAndDark(page);
  expect([...asked]).toEqual([new URL(first.url).host]);
  expect(faults).toEqual([]);

  const finished = await browser.newPage();
  await finished.goto(pathToFileURL(join(run, "report.html")).href);
  expect((await shown(finished)).charts).toEqual((await shown(page)).charts);
  await besideAnother(finished);
});

/** The arrow keys show the values at a chart's last model, which the page reads out; a digit hides a series. */
async function chartByKeys(page: Page): Promise<void> {
  const chart = page.locator("#chart-true-score");
  await chart.focus();
  await page.keyboard.press("End");
  const score = result().strategies[0]?.models.at(-1)?.trueScore?.mean as number;
  const value = `${+score.toPrecision(4)}`;
  expect(await page.locator("#chart-point").textContent()).toBe(`True score: M3: temporal ${value}`);
  expect(await chart.textContent()).toContain(`M3temporal ${value}`);
  const intervals = () => chart.locator("svg path[stroke-width='1.3']").count();
  expect(await intervals()).toBeGreaterThan(0);
  await page.keyboard.press("1");
  await expect.poll(intervals).toBe(0);
  await page.keyboard.press("1");
  await expect.poll(intervals).toBeGreaterThan(0);
  await page.keyboard.press("Escape");
}

/** No part of the page is wider than a phone, and keys alone reach and press the button of the theme. */
async function phoneAndDark(page: Page): Promise<void> {
  await page.setViewportSize({ width: 390, height: 1200 });
  await page.locator("#theme").focus();
  await page.keyboard.press("Enter");
  expect(await page.locator("html").getAttribute("data-theme")).toBe("dark");
  expect(await page.evaluate("document.documentElement.scrollWidth")).toBe(390);
  await screenshot(page, "phone-dark");
}

/** A second run that differs in one setting stands beside the first, which it is a copy of. */
async function besideAnother(page: Page): Promise<void> {
  const other = join(runs, "other");
  const { settings, ...rest } = result();
  cpSync(run, other, { recursive: true });
  writeFileSync(join(other, "run.json"), JSON.stringify({ ...rest, settings: { ...settings, seed: 41 } }));
  const watching = startTempora(["watch", run, other, "--port", "0"]);
  const url = /http:\S+:\d+/.exec(await watching.prints("http://"))?.[0] as string;
  await page.goto(url);
  const rows = page.locator('[data-part="differences"] tbody tr');
  expect(await rows.allTextContents()).toEqual([expect.stringMatching(/^seed041$/)]);
  const { charts } = await shown(page);
  const names = charts.find(({ id }) => id === "loss")?.series.map(({ name }) => name);
  expect(names).toEqual(["watched: temporal", "other: temporal"]);
  await screenshot(page, "side-by-side");
  watching.child.kill("SIGINT");
  await watching.done;
}
