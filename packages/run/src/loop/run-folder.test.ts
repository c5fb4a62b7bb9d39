import {
  cp,
  link,
  lstat,
  mkdir,
  open,
  readdir,
  readFile,
  rename,
  rm,
  stat,
  symlink,
  writeFile,
} from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { openCheckpoint } from "@tempora/models";
import { oracle, scratch } from "@tempora/testing";
import { dayText } from "@tempora/text";
import { describe, expect, test } from "vitest";
import { fileHashes } from "../models/file-hashes.ts";
import { placeModel, prepareRunFolder, startedOn } from "./run-folder.ts";

test("a model's place in a run holds its files alone, as files, wherever it came from", async () => {
  const cache = await scratch();
  const snapshot = join(cache, "snapshots/0123");
  await cp(oracle("llama", "policy"), snapshot, { recursive: true });
  await mkdir(join(cache, "blobs"));
  for (const name of ["model.safetensors", "tokenizer.json"]) {
    // The cache calls contents by their hashes.
    const blob = Buffer.from(name).toString("hex");
    await rename(join(snapshot, name), join(cache, "blobs", blob));
    await symlink(`../../blobs/${blob}`, join(snapshot, name));
  }
  for (const inner of [".cache", ".git", "original"]) await mkdir(join(snapshot, inner));
  await writeFile(join(snapshot, "README.md"), "# A model");
  await writeFile(join(snapshot, "tempora_judge.json"), "{}");
  const target = join(cache, "run/models/M0");
  await placeModel({ folder: snapshot, hash: "" }, target);
  const names = (await readdir(target)).sort();
  expect(names).toEqual([
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tempora_judge.json",
    "tokenizer.json",
    "tokenizer_config.json",
  ]);
  for (const name of names) expect((await lstat(join(target, name))).isFile(), name).toBe(true);
  expect((await openCheckpoint(target)).config).toEqual((await openCheckpoint(snapshot)).config);
});

test("a model that is edited in a run stays as it was in the store, and is placed again", async () => {
  const store = join(await scratch(), "store");
  await cp(oracle("llama", "policy"), store, { recursive: true });
  const weights = await readFile(join(store, "model.safetensors"));
  const target = join(await scratch(), "models/M1");
  await placeModel({ folder: store, hash: "" }, target);
  const placed = await stat(join(target, "model.safetensors"));
  await placeModel({ folder: store, hash: "" }, target);
  expect((await stat(join(target, "model.safetensors"))).ino).toBe(placed.ino);
  // As a copy that shares its file with the store would lie there.
  await rm(join(target, "model.safetensors"));
  await link(join(store, "model.safetensors"), join(target, "model.safetensors"));
  await placeModel({ folder: store, hash: "" }, target);
  await sleep(5);
  const file = await open(join(target, "model.safetensors"), "r+");
  await file.write("edited", weights.length - 6);
  await file.close();
  expect((await readFile(join(store, "model.safetensors"))).equals(weights)).toBe(true);
  await placeModel({ folder: store, hash: "" }, target);
  expect((await readFile(join(target, "model.safetensors"))).equals(weights)).toBe(true);
});

describe("prepareRunFolder", () => {
  const identity = { codeVersion: "one", settings: { iterations: 2, training: { epochs: 1, learningRate: 0.1 } } };
  const other = { codeVersion: "one", settings: { iterations: 2, training: { epochs: 3, learningRate: 0.1 } } };
  const upgraded = { ...identity, codeVersion: "two" };

  /** A folder with pairs of a run of `identity`. */
  async function begun(): Promise<string> {
    const folder = await scratch();
    await prepareRunFolder(folder, identity);
    await mkdir(join(folder, "iterations/1"), { recursive: true });
    await writeFile(join(folder, "iterations/1/pairs.jsonl"), "{}\n");
    return folder;
  }

  test("refuses a folder with results of other settings or other code, and leaves them", async () => {
    const folder = await begun();
    await expect(prepareRunFolder(folder, other)).rejects.toThrow(
      /what differs: training.epochs .*another name with --run; --overwrite replaces/,
    );
    await expect(prepareRunFolder(folder, upgraded)).rejects.toThrow(
      /what differs: the code .*--keep-stages goes on .*--overwrite replaces/,
    );
    expect(await readFile(join(folder, "iterations/1/pairs.jsonl"), "utf8")).toBe("{}\n");
    await startedOn(folder, null);
    const started = await readFile(join(folder, "started.json"), "utf8");
    expect(await prepareRunFolder(folder, identity)).toEqual([]);
    expect(await readFile(join(folder, "started.json"), "utf8")).toBe(started);
    await prepareRunFolder(folder, other, { overwrite: true });
    expect(await readdir(folder)).toEqual(["started.json"]);
    expect(await prepareRunFolder(folder, other)).toEqual([]);
  });

  test("gives a folder without results to whatever run comes next", async () => {
    const folder = await scratch();
    await prepareRunFolder(folder, identity);
    expect(await prepareRunFolder(folder, other)).toEqual([]);
    expect(await prepareRunFolder(folder, { ...other, codeVersion: "two" })).toEqual([]);
  });

  test("keeps the stages of earlier code when told to, and from then on", async () => {
    const folder = await begun();
    const day = dayText(await startedOn(folder, null));
    const known = { ...upgraded, settings: { ...identity.settings, invented: true } };
    expect(await prepareRunFolder(folder, known, { keepStages: true })).toEqual(["one"]);
    expect(await prepareRunFolder(folder, known)).toEqual(["one"]);
    expect(await prepareRunFolder(folder, { ...known, codeVersion: "three" }, { keepStages: true })).toEqual([
      "one",
      "two",
    ]);
    expect(dayText(await startedOn(folder, null))).toBe(day);
    await expect(prepareRunFolder(folder, { ...other, codeVersion: "four" }, { keepStages: true })).rejects.toThrow(
      /what differs: training.epochs/,
    );
  });
});

describe("startedOn", () => {
  test("is the day of the first start, however often the run is started again", async () => {
    const folder = await scratch();
    const first = await startedOn(folder, null);
    expect(dayText(first)).toBe(dayText(new Date()));
    await writeFile(join(folder, "started.json"), '{"date": "2025-12-31"}');
    expect(dayText(await startedOn(folder, null))).toBe("2025-12-31");
    expect(dayText(await startedOn(folder, "2026-05-01"))).toBe("2026-05-01");
  });

  test("writes a damaged file anew", async () => {
    const folder = await scratch();
    await writeFile(join(folder, "started.json"), '{"date": "soon"');
    expect(dayText(await startedOn(folder, null))).toBe(dayText(new Date()));
    expect(await readFile(join(folder, "started.json"), "utf8")).toContain(dayText(new Date()));
  });
});

test("no file of a model of the store is placed that is not the one that was saved", async () => {
  const store = join(await scratch(), "store");
  await cp(oracle("llama", "policy"), store, { recursive: true });
  await writeFile(join(store, "tempora_judge.json"), "{}");
  const model = { folder: store, hash: "", files: await fileHashes(store) };
  await placeModel(model, join(await scratch(), "M1"));
  for (const name of ["tempora_judge.json", "config.json", "model.safetensors"]) {
    const bytes = await readFile(join(store, name));
    const changed = Buffer.from(bytes);
    changed[0] = (changed[0] as number) ^ 1;
    await writeFile(join(store, name), changed);
    await expect(placeModel(model, join(await scratch(), "M1"))).rejects.toThrow();
    await writeFile(join(store, name), bytes);
  }
});
