import { mkdir, writeFile } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import { failure, scratch } from "@tempora/testing";
import { describe, expect, test } from "vitest";
import { type Environment, readHubSettings } from "./hub-settings.ts";

/** A home of the hub without a token. */
const home = await scratch();
const read = (environment: Environment) => readHubSettings({ HF_HOME: home, ...environment });

describe("as Python's huggingface_hub reads them:", () => {
  test.each<[Environment, string]>([
    [{}, join(home, "hub")],
    [{ HF_HOME: "", XDG_CACHE_HOME: home }, join(home, "huggingface", "hub")],
    [{ HF_HOME: undefined, HF_HUB_DISABLE_IMPLICIT_TOKEN: "1" }, join(homedir(), ".cache", "huggingface", "hub")],
    [{ HF_HOME: "~/models", HF_HUB_DISABLE_IMPLICIT_TOKEN: "1" }, join(homedir(), "models", "hub")],
    [{ HF_HUB_CACHE: "/one", HUGGINGFACE_HUB_CACHE: "/other" }, "/one"],
    [{ HUGGINGFACE_HUB_CACHE: "/other" }, "/other"],
    [{ HF_HUB_CACHE: "~/one" }, join(homedir(), "one")],
    [{ HF_HUB_CACHE: " " }, join(home, "hub")],
  ])("%j: the cache", async (environment, cache) => {
    expect((await read(environment)).cache).toBe(cache);
  });

  test("the endpoint", async () => {
    expect((await read({})).endpoint).toBe("https://huggingface.co");
    expect((await read({ HF_ENDPOINT: "http://127.0.0.1:1/hub//" })).endpoint).toBe("http://127.0.0.1:1/hub");
  });

  test("offline mode", async () => {
    for (const HF_HUB_OFFLINE of ["1", "on", "Yes", "true", " TRUE "]) {
      expect((await read({ HF_HUB_OFFLINE })).offline, HF_HUB_OFFLINE).toBe(true);
    }
    for (const HF_HUB_OFFLINE of [undefined, "", "0", "no", "2"]) {
      expect((await read({ HF_HUB_OFFLINE })).offline, HF_HUB_OFFLINE).toBe(false);
    }
    expect((await read({ TRANSFORMERS_OFFLINE: "1" })).offline).toBe(true);
    expect((await read({ HF_HUB_OFFLINE: "0", TRANSFORMERS_OFFLINE: "1" })).offline).toBe(false);
  });

  test("the token", async () => {
    const token = async (environment: Environment) => (await read(environment)).token;
    expect(await token({})).toBeNull();
    const own = await scratch();
    await writeFile(join(own, "token"), "of the file\n");
    await writeFile(join(own, "other"), "of another\n");
    const logged = { HF_HOME: own };
    expect(await token(logged)).toBe("of the file");
    expect(await token({ ...logged, HF_TOKEN_PATH: join(own, "other") })).toBe("of another");
    expect(await token({ ...logged, HF_TOKEN: " given\n" })).toBe("given");
    expect(await token({ ...logged, HUGGING_FACE_HUB_TOKEN: "older" })).toBe("older");
    expect(await token({ HF_TOKEN: "given", HUGGING_FACE_HUB_TOKEN: "older" })).toBe("given");
    expect(await token({ ...logged, HF_HUB_DISABLE_IMPLICIT_TOKEN: "1" })).toBeNull();
    await mkdir(join(own, "folder"));
    const error = await failure(() => token({ HF_TOKEN_PATH: join(own, "folder") }));
    expect(error.what).toMatch(/^Cannot read the hub's token/);
    expect(error.where).toEqual({ file: join(own, "folder") });
  });
});
