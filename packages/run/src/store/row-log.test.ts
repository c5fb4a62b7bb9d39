import { spawn } from "node:child_process";
import { once } from "node:events";
import { appendFile, readdir, readFile, stat, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { failure, scratch } from "@tempora/testing";
import { describe, expect, it } from "vitest";
import { checkedLines } from "./checked-lines.ts";
import { RowLog, sealedRows } from "./row-log.ts";

interface Row {
  task: number;
  sample: number;
  text: string;
}

const samples = 3;
const place = ({ task, sample }: Row) => task * samples + sample;
const row = (number: number): Row => ({
  task: Math.floor(number / samples),
  sample: number % samples,
  text: `é ${number}`.repeat(1 + (number % 7)),
});
const count = 200;
/** A different order for each seed. */
const order = (seed: number) => Array.from({ length: count }, (_, k) => (k * 7919 + seed * 31) % count);

async function fill(folder: string, numbers: readonly number[]) {
  const log = await RowLog.open<Row>(folder, "answers", { place });
  for (const number of numbers) await log.add(row(number));
  return log;
}

async function list<T>(rows: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const value of rows) all.push(value);
  return all;
}

describe("RowLog", () => {
  it("seals to the same bytes whatever order the rows came in", async () => {
    const folders = await Promise.all([scratch(), scratch(), scratch()]);
    const seals = [];
    for (const [seed, folder] of folders.entries()) seals.push(await (await fill(folder, order(seed))).seal());
    expect(seals[0]?.count).toBe(count);
    expect(new Set(seals.map(({ hash }) => hash)).size).toBe(1);
    const bytes = await Promise.all(folders.map((folder) => readFile(join(folder, "answers.jsonl"), "utf8")));
    expect(new Set(bytes).size).toBe(1);
    expect(await readdir(folders[0] as string)).toEqual(["answers.jsonl"]);
    const read = await list(sealedRows<Row>(folders[0] as string, "answers", seals[0] as (typeof seals)[number]));
    expect(read).toEqual(Array.from({ length: count }, (_, k) => row(k)));
  });

  it("goes on after a torn line, tells what earlier processes left, and takes a place once", async () => {
    const [undisturbed, torn] = [await scratch(), await scratch()];
    const expected = await (await fill(undisturbed, order(0))).seal();
    await (await fill(torn, order(1).slice(0, 100))).close();
    const file = join(torn, "answers.jsonl");
    await truncate(file, (await stat(file)).size - 3);
    const earlier: Row[] = [];
    const log = await RowLog.open<Row>(torn, "answers", { place, onEarlier: (value) => earlier.push(value) });
    expect(earlier).toEqual(order(1).slice(0, 99).map(row));
    expect(log.has(order(1)[98] as number)).toBe(true);
    expect(log.has(order(1)[99] as number)).toBe(false);
    expect(await log.add(row(order(1)[98] as number))).toBe(false);
    for (const number of order(2)) await log.add(row(number));
    expect(log.count).toBe(count);
    expect(await log.seal()).toEqual(expected);
    expect(await readFile(file)).toEqual(await readFile(join(undisturbed, "answers.jsonl")));
  });

  it("opens again after it was sealed, as a stage that was killed before its result does", async () => {
    const folder = await scratch();
    const expected = await (await fill(folder, order(0))).seal();
    const log = await RowLog.open<Row>(folder, "answers", { place });
    expect(log.count).toBe(count);
    expect(await log.seal()).toEqual(expected);
  });

  it("survives SIGKILL among its appends and after its sealing", async () => {
    const [undisturbed, killed] = [await scratch(), await scratch()];
    const expected = await (await fill(undisturbed, order(0))).seal();
    const script = `
      import { RowLog } from "./row-log.ts";
      const log = await RowLog.open(${JSON.stringify(killed)}, "answers", { place: (row) => row.task * ${samples} + row.sample });
      const rows = ${JSON.stringify(order(1).map(row))};
      for (const row of rows) { await log.add(row); await log.flush(); process.stdout.write("."); }
      await log.seal();
      process.stdout.write("sealed");
      setTimeout(() => {}, 60000);`;
    for (const dots of [1, 40, 120, 199, 206]) {
      const child = spawn(process.execPath, ["-e", script], { cwd: import.meta.dirname, stdio: ["ignore", "pipe", 2] });
      let seen = 0;
      child.stdout?.on("data", (data: Buffer) => {
        seen += data.length;
        if (seen >= dots) child.kill("SIGKILL");
      });
      expect((await once(child, "exit"))[1]).toBe("SIGKILL");
    }
    expect(await (await fill(killed, order(2))).seal()).toEqual(expected);
    expect(await readFile(join(killed, "answers.jsonl"))).toEqual(await readFile(join(undisturbed, "answers.jsonl")));
  });

  it("refuses rows that are not those that were sealed", async () => {
    const folder = await scratch();
    const sealed = await (await fill(folder, order(0))).seal();
    await appendFile(join(folder, "answers.jsonl"), `${checkedLines.write({ task: 0, sample: 0, text: "more" })}\n`);
    const error = await failure(() => list(sealedRows(folder, "answers", sealed)));
    expect(error.message).toMatch(/rows are not those that were written \(.*answers.jsonl\)/);
  });

  it("says of rows without a checksum that an earlier version wrote them", async () => {
    const folder = await scratch();
    const sealed = await (await fill(folder, order(0).slice(0, 5))).seal();
    await writeFile(join(folder, "answers.jsonl"), '{"task":0,"sample":0,"text":"x"}\n');
    for (const read of [() => fill(folder, []), () => list(sealedRows(folder, "answers", sealed))]) {
      const { message } = await failure(read);
      expect(message).toMatch(/An earlier version .* \(.*answers.jsonl, row 1\)\. Go on without --keep-stages/);
    }
  });

  it("goes on with no row of which a single byte has changed", async () => {
    const folder = await scratch();
    const file = join(folder, "answers.jsonl");
    await (await fill(folder, order(0).slice(0, 5))).close();
    const bytes = await readFile(file);
    for (let at = 0; at < bytes.length - 1; at++) {
      const changed = Uint8Array.from(bytes);
      (changed[at] as number) ^= 1;
      await writeFile(file, changed);
      const { message } = await failure(() => fill(folder, []));
      expect(message).toMatch(/This row of the log is damaged \(.*answers.jsonl, row \d+\)/);
    }
  });
});
