import { existsSync } from "node:fs";
import { mkdir, readdir, readFile, rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { scratch } from "@tempora/testing";
import { expect, test } from "vitest";
import { cleanStore, storeInventory, storeOf } from "./inventory.ts";
import { Store } from "./store.ts";
import { runIdentity } from "./users.ts";

const settings = { seed: 1 };
const future = "training F1 from M0";

/** A run that has asked for stages of a common store, in a folder of runs. */
async function runIn(runs: string, name: string, status: string, asks: Record<string, string[]>): Promise<Store> {
  const run = join(runs, name);
  await mkdir(run, { recursive: true });
  await writeFile(join(run, "started.json"), JSON.stringify({ codeVersion: "v1", settings }));
  await writeFile(join(run, "run.json"), JSON.stringify({ status, codeVersion: "v1", settings }));
  const store = new Store(storeOf(runs), "v1", { user: { run, identity: runIdentity("v1", settings) } });
  for (const [input, own] of Object.entries(asks)) {
    for (const label of own) {
      await store.stage({
        ...{ kind: "preference-training", label, temporary: label === future, inputs: input },
        compute: async (folder) => {
          await mkdir(join(folder, "model"), { recursive: true });
          await writeFile(join(folder, "model", "weights"), new Uint8Array(1000));
          return { hash: input };
        },
      });
    }
  }
  return store;
}

const named = async (runs: string) => {
  const stages = await storeInventory(storeOf(runs));
  return Object.fromEntries(
    stages.map(({ folder, users, spentModel }) => [folder, { users: users.length, spentModel }]),
  );
};

test("a store is told by run, and only what nobody needs is removed from it", async () => {
  const runs = await scratch();
  const store = await runIn(runs, "one", "finished", {
    future: [future],
    shared: ["training M1 from M0", future],
    next: ["training M1 from M0"],
  });
  await runIn(runs, "two", "running", { shared: [future], other: [future] });
  const folderOf = (input: string) =>
    join(storeOf(runs), "preference-training", store.key("preference-training", input));
  expect(await named(runs)).toEqual({
    [folderOf("future")]: { users: 1, spentModel: 1000 },
    [folderOf("shared")]: { users: 2, spentModel: 0 },
    [folderOf("next")]: { users: 1, spentModel: 0 },
    [folderOf("other")]: { users: 1, spentModel: 0 },
  });

  // A run that goes on with other settings no longer needs what it had.
  await writeFile(join(runs, "two", "started.json"), JSON.stringify({ codeVersion: "v1", settings: { seed: 2 } }));
  const pretended = await cleanStore(storeOf(runs), { pretend: true });
  expect(pretended.stages.map(({ folder }) => folder)).toEqual([folderOf("other")]);
  expect(pretended.models.map(({ folder }) => folder)).toEqual([folderOf("future")]);
  expect(existsSync(folderOf("other"))).toBe(true);

  const cleaned = await cleanStore(storeOf(runs), { pretend: false });
  expect(cleaned.bytes).toBe(pretended.bytes);
  expect(existsSync(folderOf("other"))).toBe(false);
  expect(existsSync(join(folderOf("future"), "model"))).toBe(false);
  expect(await readdir(join(folderOf("shared"), "model"))).toEqual(["weights"]);
  // The training itself is still known.
  const again = await store.stage({ kind: "preference-training", inputs: "future", compute: () => Promise.reject() });
  expect(again).toMatchObject({ reused: true, result: { hash: "future" } });
  expect((await cleanStore(storeOf(runs), { pretend: false })).bytes).toBe(0);
});

test("a folder of runs that is moved keeps what its runs need", async () => {
  const runs = await scratch();
  const before = join(runs, "before");
  const after = join(runs, "after");
  await runIn(before, "one", "finished", { next: ["training M1 from M0"] });
  // As the runs of a study lie.
  await runIn(before, "study/seed-1", "finished", { deeper: ["training M1 from M0"] });
  await rename(before, after);
  const stages = await storeInventory(storeOf(after));
  expect(stages.map(({ users }) => users[0]?.run).sort()).toEqual([join(after, "one"), join(after, "study/seed-1")]);
  const stage = stages.find(({ users }) => users[0]?.run === join(after, "one"));
  expect(stage?.users).toEqual([{ run: join(after, "one"), labels: ["training M1 from M0"] }]);
  expect((await cleanStore(storeOf(after), { pretend: false })).stages).toEqual([]);

  // As earlier versions wrote it: absolute, and without saying what is temporary.
  const [name] = await readdir(join(stage?.folder as string, "used-by"));
  const file = join(stage?.folder as string, "used-by", name as string);
  const { temporary: _, ...use } = JSON.parse(await readFile(file, "utf8"));
  await writeFile(file, JSON.stringify({ ...use, run: join(before, "one"), labels: [future] }));
  const own = async () => (await storeInventory(storeOf(after))).find(({ key }) => key === stage?.key);
  expect(await own()).toMatchObject({ users: [{ run: join(after, "one") }], spentModel: 0 });
  await runIn(after, "one", "finished", { next: ["training M1 from M0"] });
  expect((await own())?.users).toHaveLength(1);
});

test("a stage that a process works on is left alone", async () => {
  const runs = await scratch();
  const store = new Store(storeOf(runs), "v1");
  const inside = Promise.withResolvers<void>();
  const go = Promise.withResolvers<void>();
  const work = store.stage({
    ...{ kind: "answers", inputs: 1 },
    compute: async () => {
      inside.resolve();
      await go.promise;
      return {};
    },
  });
  await inside.promise;
  const { stages, busy } = await cleanStore(storeOf(runs), { pretend: false, unmarked: true });
  expect([stages.length, busy.length]).toEqual([0, 1]);
  go.resolve();
  await work;
  expect((await cleanStore(storeOf(runs), { pretend: false })).unmarked).toHaveLength(1);
  expect((await cleanStore(storeOf(runs), { pretend: false, unmarked: true })).stages).toHaveLength(1);
});

test("a folder without a store is said to have none", async () => {
  const runs = await scratch();
  await expect(storeInventory(storeOf(runs))).rejects.toThrow(/There is no store/);
});
