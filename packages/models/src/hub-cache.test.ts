import { mkdir, readlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { scratch } from "@tempora/testing";
import { expect, test } from "vitest";
import { HubCache } from "./hub-cache.ts";

const commit = "0123456789abcdef0123456789abcdef01234567";
const file = (path: string, size = 2) => ({ path, size, etag: `etag of ${path}`.replaceAll("/", "-") });

/** A cache that holds nothing. */
async function emptyCache(): Promise<HubCache> {
  return new HubCache(await scratch(), "org/name");
}

async function fill(cache: HubCache, ...paths: string[]): Promise<void> {
  await mkdir(join(cache.folder, "blobs"), { recursive: true });
  for (const path of paths) {
    await writeFile(cache.blob(file(path)), "{}");
    await cache.link(commit, file(path));
  }
}

test("lies where Python looks for it", async () => {
  const folder = await scratch();
  const cache = new HubCache(folder, "org/name");
  expect(cache.folder).toBe(join(folder, "models--org--name"));
  await fill(cache, "sub/model.gguf");
  const pointer = join(folder, "models--org--name/snapshots", commit, "sub/model.gguf");
  expect(await readlink(pointer)).toBe("../../../blobs/etag of sub-model.gguf");
});

test("knows the commit of a revision, and takes nothing else for one", async () => {
  const cache = await emptyCache();
  expect(await cache.commit("main")).toBeNull();
  await cache.remember("refs/pr/3", commit);
  expect(await cache.commit("refs/pr/3")).toBe(commit);
  // A commit names itself, where it was fetched.
  expect(await cache.commit(commit)).toBeNull();
  await fill(cache, "config.json");
  expect(await cache.commit(commit)).toBe(commit);
  // Cut off, or written by something else.
  await writeFile(join(cache.folder, "refs", "main"), commit.slice(0, 7));
  expect(await cache.commit("main")).toBeNull();
  await writeFile(join(cache.folder, "refs", "main"), `${commit}\n`);
  expect(await cache.commit("main")).toBe(commit);
  expect(await cache.revisions()).toEqual(["main", "refs/pr/3"]);
});

test("has a file where the whole of it is linked", async () => {
  const cache = await emptyCache();
  await fill(cache, "config.json");
  expect(await cache.has(commit, file("config.json"))).toBe(true);
  expect(await cache.has(commit, file("config.json", 3))).toBe(false);
  expect(await cache.has(commit, file("other.json"))).toBe(false);
});

test("is usable with config and all weights, or with the GGUF file that is meant", async () => {
  const cache = await emptyCache();
  await fill(cache, "model.safetensors", "q4.gguf");
  expect(await cache.isUsable(commit, null)).toBe(false);
  expect(await cache.isUsable(commit, "q4.gguf")).toBe(true);
  expect(await cache.isUsable(commit, "q8.gguf")).toBe(false);
  await fill(cache, "config.json");
  expect(await cache.isUsable(commit, null)).toBe(true);
  const sharded = await emptyCache();
  await fill(sharded, "config.json", "a.safetensors");
  const index = join(sharded.snapshot(commit), "model.safetensors.index.json");
  await writeFile(index, JSON.stringify({ weight_map: { one: "a.safetensors", two: "b.safetensors" } }));
  expect(await sharded.isUsable(commit, null)).toBe(false);
  await fill(sharded, "b.safetensors");
  expect(await sharded.isUsable(commit, null)).toBe(true);
});

test("names the models that lie in it", async () => {
  const folder = await scratch();
  for (const name of ["models--b--one", "models--a--two--more", "datasets--a--b", ".locks"])
    await mkdir(join(folder, name));
  expect(await new HubCache(folder, "org/name").models()).toEqual(["a/two--more", "b/one"]);
});
