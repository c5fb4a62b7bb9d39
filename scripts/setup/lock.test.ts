import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { withLock } from "./lock.ts";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "tempora-lock-"));
});
afterEach(() => rmSync(folder, { recursive: true }));

/** Another process that takes the lock, writes to `log` when it has it, and holds it. */
function holder(milliseconds: number) {
  const script = `
    import { appendFileSync } from "node:fs";
    import { withLock } from ${JSON.stringify(join(import.meta.dirname, "lock.ts"))};
    await withLock(${JSON.stringify(join(folder, "lock"))}, () => {}, async () => {
      appendFileSync(${JSON.stringify(join(folder, "log"))}, "begin ");
      await Bun.sleep(${milliseconds});
      appendFileSync(${JSON.stringify(join(folder, "log"))}, "end ");
    });`;
  return Bun.spawn([process.execPath, "-e", script], { stderr: "inherit" });
}

async function untilItHolds(): Promise<void> {
  while (!existsSync(join(folder, "log"))) await Bun.sleep(10);
}

const log = () => readFileSync(join(folder, "log"), "utf8");

test("work waits for another process's work to end, and says so once", async () => {
  const other = holder(500);
  await untilItHolds();
  let waits = 0;
  const seen = await withLock(
    join(folder, "lock"),
    () => waits++,
    async () => log(),
  );
  expect(seen).toBe("begin end ");
  expect(waits).toBe(1);
  expect(await other.exited).toBe(0);
});

test("two processes never hold it at once", async () => {
  const others = [holder(100), holder(100), holder(100)];
  await Promise.all(others.map((other) => other.exited));
  expect(log()).toBe("begin end begin end begin end ");
});

test("the lock of a killed process is free", async () => {
  const other = holder(60_000);
  await untilItHolds();
  other.kill("SIGKILL");
  await other.exited;
  await expect(
    withLock(
      join(folder, "lock"),
      () => {},
      async () => "mine",
    ),
  ).resolves.toBe("mine");
});

test("the lock is free again after work that failed", async () => {
  const file = join(folder, "lock");
  const failing = withLock(
    file,
    () => {},
    () => Promise.reject(new Error("no compiler")),
  );
  await expect(failing).rejects.toThrow("no compiler");
  await expect(
    withLock(
      file,
      () => {},
      async () => "mine",
    ),
  ).resolves.toBe("mine");
});
