import { cp, lstat, mkdir, readdir, rename, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { openCheckpoint } from "@tempora/models";
import { oracle, scratch } from "@tempora/testing";
import { expect, test } from "vitest";
import { placeModel } from "./run-folder.ts";

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
