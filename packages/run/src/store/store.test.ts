import { spawn } from "node:child_process";
import { appendFile, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { lockFolder } from "./locks.ts";
import { Store } from "./store.ts";

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "tempora-store-"));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

/** Runs a script that imports from this folder, in a process of its own. */
function child(script: string): ReturnType<typeof spawn> {
  return spawn(process.execPath, ["-e", script], { cwd: import.meta.dirname, stdio: ["ignore", "pipe", "inherit"] });
}

function firstLine(process: ReturnType<typeof spawn>): Promise<string> {
  return new Promise((done) => process.stdout?.once("data", (data: Buffer) => done(data.toString().trim())));
}

describe("Store", () => {
  const work = <Result = number>(compute: (folder: string) => Promise<Result>, inputs = { x: 1 }) => ({
    kind: "test",
    inputs,
    compute,
  });

  it("computes a stage once and reuses it, also from another Store", async () => {
    let calls = 0;
    const compute = async () => ++calls;
    expect(await new Store(folder, "v1").stage(work(compute))).toMatchObject({ result: 1, reused: false });
    expect(await new Store(folder, "v1").stage(work(compute))).toMatchObject({ result: 1, reused: true });
  });

  it("computes anew when an input or the code differs", async () => {
    let calls = 0;
    const compute = async () => ++calls;
    await new Store(folder, "v1").stage(work(compute));
    expect((await new Store(folder, "v1").stage(work(compute, { x: 2 }))).result).toBe(2);
    expect((await new Store(folder, "v2").stage(work(compute))).result).toBe(3);
  });

  it("keeps what a failed attempt has logged and finishes the stage the next time", async () => {
    const store = new Store(folder, "v1");
    const attempt = (fail: boolean) =>
      store.stage({
        kind: "log",
        inputs: null,
        compute: async (stage) => {
          await appendFile(join(stage, "rows"), "row\n");
          if (fail) throw new Error("stopped");
          return readFile(join(stage, "rows"), "utf8");
        },
      });
    await expect(attempt(true)).rejects.toThrow("stopped");
    expect(await attempt(false)).toMatchObject({ result: "row\nrow\n", reused: false });
  });

  it("takes a stage over from a process that was killed in the middle", async () => {
    const script = `
      import { appendFile } from "node:fs/promises";
      import { Store } from "./store.ts";
      await new Store(${JSON.stringify(folder)}, "v1").stage({ kind: "test", inputs: { x: 1 }, compute: async (stage) => {
        await appendFile(stage + "/rows", "a");
        console.log("working");
        await new Promise((done) => setTimeout(done, 60000));
        return 0;
      }});`;
    const process = child(script);
    expect(await firstLine(process)).toBe("working");
    process.kill("SIGKILL");
    await new Promise((done) => process.once("exit", done));
    const begun = Date.now();
    const outcome = await new Store(folder, "v1").stage(
      work(async (stage) => (await readFile(`${stage}/rows`)).length),
    );
    expect(outcome).toMatchObject({ result: 1, reused: false });
    expect(Date.now() - begun).toBeLessThan(5000);
  });

  it("waits for a process that computes the same stage and then reuses its result", async () => {
    const script = `
      import { Store } from "./store.ts";
      await new Store(${JSON.stringify(folder)}, "v1").stage({ kind: "test", inputs: { x: 1 }, compute: async () => {
        console.log("working");
        await new Promise((done) => setTimeout(done, 500));
        return 42;
      }});`;
    const process = child(script);
    expect(await firstLine(process)).toBe("working");
    let waited = 0;
    const outcome = await new Store(folder, "v1").stage({ ...work(async () => 0), onWait: () => waited++ });
    expect(outcome).toMatchObject({ result: 42, reused: true });
    expect(waited).toBe(1);
  });

  it("takes the stages of earlier code where it is told to", async () => {
    await new Store(folder, "v1").stage(work(async () => 1));
    const kept = new Store(folder, "v2", { keptCode: ["v1"] });
    expect(await kept.stage(work(async () => 2))).toMatchObject({ result: 1, reused: true });
    expect(await new Store(folder, "v2").stage(work(async () => 2))).toMatchObject({ result: 2, reused: false });
  });

  it("names the file when a result is damaged", async () => {
    const store = new Store(folder, "v1");
    const { folder: stage } = await store.stage(work(async () => 1));
    await writeFile(join(stage, "result.json"), "{");
    await expect(store.stage(work(async () => 1))).rejects.toThrow(/not what was written \(.*result.json\)/);
  });

  it("says of a result without a checksum that an earlier version wrote it", async () => {
    const store = new Store(folder, "v1");
    const { folder: stage } = await store.stage(work(async () => 1));
    await writeFile(join(stage, "result.json"), '{"hash":"beef","steps":12}\n');
    await expect(store.stage(work(async () => 1))).rejects.toThrow(
      /An earlier version .*\(.*result.json\)\. Go on without --keep-stages/,
    );
  });

  it("reads no result of which a single byte has changed", async () => {
    const store = new Store(folder, "v1");
    const result = { hash: "beef", steps: 12, totals: { flops: 3.25e9 } };
    const { folder: stage } = await store.stage(work(async () => result));
    const file = join(stage, "result.json");
    const bytes = await readFile(file);
    expect((await store.stage(work(async () => result))).result).toEqual(result);
    for (let at = 0; at < bytes.length - 1; at++) {
      const changed = Uint8Array.from(bytes);
      (changed[at] as number) ^= 1;
      await writeFile(file, changed);
      await expect(store.stage(work(async () => result)), String.fromCharCode(...changed)).rejects.toThrow(
        /not what was written/,
      );
    }
  });
});

describe("lockFolder", () => {
  it("tells a second process who holds the folder, and lets it in afterwards", async () => {
    const script = `
      import { lockFolder } from "./locks.ts";
      const lock = await lockFolder(${JSON.stringify(folder)}, "The run", () => {});
      console.log("held");
      await new Promise((done) => setTimeout(done, 700));
      await lock.release();`;
    const process = child(script);
    expect(await firstLine(process)).toBe("held");
    const lost = () => {};
    await expect(lockFolder(folder, "The run", lost)).rejects.toThrow(`The run is in use by process ${process.pid}`);
    await new Promise((done) => process.once("exit", done));
    const lock = await lockFolder(folder, "The run", lost);
    await lock.release();
  });
});
