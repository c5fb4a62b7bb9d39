import { type Browser, chromium } from "playwright-core";
import { test } from "vitest";

const path = process.env.TEMPORA_BROWSER;

/**
 * A test in the real browser that TEMPORA_BROWSER names; without it the test is skipped and says so. Not whatever browser a
 * machine happens to have: a suite should not hang on one that nobody asked for.
 */
export function testInBrowser(name: string, body: (browser: Browser) => Promise<void>): void {
  if (path === undefined) {
    const reason =
      "name a Chromium by TEMPORA_BROWSER, as TEMPORA_BROWSER=/usr/bin/chromium (apt-get install chromium)";
    process.stderr.write(`skipped: ${name}: ${reason}\n`);
    test.skip(`${name} (${reason})`, () => undefined);
    return;
  }
  test(name, async () => {
    const server = await chromium.launchServer({ executablePath: path, args });
    try {
      await body(await chromium.connect(server.wsEndpoint()));
    } finally {
      // Killed, not asked to close: a browser that hangs while it ends would hold the whole suite.
      await server.kill();
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
