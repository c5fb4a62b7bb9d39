import { existsSync } from "node:fs";
import { type Browser, chromium } from "playwright-core";
import { test } from "vitest";

const known = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
const path = process.env.TEMPORA_BROWSER ?? known.find((file) => existsSync(file));

/** A test in a real browser: TEMPORA_BROWSER, or Chromium where systems have it. Where there is none it is skipped and says so. */
export function testInBrowser(name: string, body: (browser: Browser) => Promise<void>): void {
  if (path === undefined) {
    const reason = "no Chromium found: install it (apt-get install chromium), or name one by TEMPORA_BROWSER";
    process.stderr.write(`skipped: ${name}: ${reason}\n`);
    test.skip(`${name} (${reason})`, () => undefined);
    return;
  }
  test(name, async () => {
    const browser = await chromium.launch({ executablePath: path, args });
    try {
      await body(browser);
    } finally {
      await browser.close();
    }
  });
}

/** The page asks for nothing outside; neither shall the browser by itself. */
const args = [
  "--headless",
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];
