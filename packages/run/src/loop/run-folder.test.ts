import { cp, lstat, mkdir, readdir, readFile, rename, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { openCheckpoint } from "@tempora/models";
import { oracle, scratch } from "@tempora/testing";
import { dayText } from "@tempora/text";
import { describe, expect, test } from "vitest";
import { placeModel, startedOn } from "./run-folder.ts";

test("a model's place in a run holds its files alone, as files, wherever it came from", async () => {
  const cache = await scratch();
  const snapshot = join(cache, "snapshots/0123");
  await cp(oracle("llama", "policy"), snapshot, { recursive: true });
  await mkdir(join(cache, "blobs"));
  for (const name of ["model.safetensors", "tokenizer.json"]) {
    await rename(join(snapshot, name), join(cache, "blobs", name));
    await symlink(`../../blobs/${name}`, join(snapshot, name));
  }
  for (const inner of [".cache", ".git", "original"]) await mkdir(join(snapshot, inner));
  await writeFile(join(snapshot, "README.md"), "# A model");
  await writeFile(join(snapshot, "tempora_judge.json"), "{}");
  const target = join(cache, "run/models/M0");
  await placeModel(snapshot, target);
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
