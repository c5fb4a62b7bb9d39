import { type ChildProcess, spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { scratch } from "@tempora/testing";
import { expect, test } from "vitest";
import { folderLockOwner, tryLockFolder } from "./folder-lock.ts";

const never = (reason: Error) => {
  throw reason;
};

/** A process of its own that imports from this folder; `locked(folder)` waits for the lock. */
function child(script: string): ChildProcess {
  const prelude = `
    import { appendFileSync, existsSync } from "node:fs";
    import { tryLockFolder } from "./folder-lock.ts";
    const pause = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));
    async function locked(folder) {
      for (;;) {
        const lock = await tryLockFolder(folder, (reason) => { throw reason; });
        if (lock !== null) return lock;
        await pause(1);
      }
    }`;
  return spawn(process.execPath, ["-e", `${prelude}\n${script}`], {
    cwd: import.meta.dirname,
    stdio: ["ignore", "pipe", "inherit"],
  });
}

/** A process that holds the lock of a folder until it is killed. */
async function holder(folder: string): Promise<ChildProcess> {
  const process = child(`await locked(${JSON.stringify(folder)}); console.log("held"); await pause(100000);`);
  await new Promise((done) => process.stdout?.once("data", done));
  return process;
}

const ended = (process: ChildProcess) => new Promise((done) => process.once("exit", done));

test("of many that want the lock of a killed owner, never two hold it", async () => {
  const rounds = 4;
  for (let round = 0; round < rounds; round++) {
    const folder = await scratch();
    const owner = await holder(folder);
    const log = join(folder, "log");
    const takers = Array.from({ length: 6 }, (_, k) =>
      child(`
        console.log("ready");
        for (let turn = 0; turn < 4; turn++) {
          const lock = await locked(${JSON.stringify(folder)});
          appendFileSync(${JSON.stringify(log)}, "begin ${k}\\n");
          await pause(2);
          appendFileSync(${JSON.stringify(log)}, "end ${k}\\n");
          // Some are killed as the first was.
          if (turn === 2 && ${k} < 3) process.kill(process.pid, "SIGKILL");
          await lock.release();
          await pause(1);
        }`),
    );
    const exits = takers.map(ended);
    await Promise.all(takers.map((taker) => new Promise((done) => taker.stdout?.once("data", done))));
    expect(existsSync(log)).toBe(false);
    owner.kill("SIGKILL");
    await Promise.all(exits);
    const lines = (await readFile(log, "utf8")).trim().split("\n");
    expect(lines.length).toBe(2 * (3 * 3 + 3 * 4));
    for (let k = 0; k < lines.length; k += 2) expect(lines[k + 1]).toBe(lines[k]?.replace("begin", "end"));
  }
}, 120_000);

test("an owner that is stopped keeps its lock for as long as it lives", async () => {
  const folder = await scratch();
  const owner = await holder(folder);
  owner.kill("SIGSTOP");
  await sleep(300);
  expect(await tryLockFolder(folder, never)).toBe(null);
  expect((await folderLockOwner(folder))?.pid).toBe(owner.pid);
  owner.kill("SIGKILL");
  await ended(owner);
  const lock = await tryLockFolder(folder, never);
  expect((await folderLockOwner(folder))?.pid).toBe(process.pid);
  await lock?.release();
});

test("excludes the same process too, and is free once it is given back", async () => {
  const folder = await scratch();
  const lock = await tryLockFolder(folder, never);
  expect(await tryLockFolder(folder, never)).toBe(null);
  await lock?.release();
  await lock?.release();
  const again = await tryLockFolder(folder, never);
  expect(again).not.toBe(null);
  await again?.release();
  expect(await folderLockOwner(folder)).toBe(null);
});

test("tells its owner when the lock's file was removed", async () => {
  const folder = await scratch();
  let reason: Error | null = null;
  const lock = await tryLockFolder(folder, (told) => {
    reason = told;
  });
  await rm(join(folder, ".lock.sqlite"));
  const other = await tryLockFolder(folder, never);
  expect(other).not.toBe(null);
  await expect.poll(() => reason, { timeout: 5000 }).toMatchObject({ what: expect.stringContaining("was removed") });
  await lock?.release();
  expect((await folderLockOwner(folder))?.pid).toBe(process.pid);
  await other?.release();
});
