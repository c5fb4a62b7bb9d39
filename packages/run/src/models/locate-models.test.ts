import { join } from "node:path";
import { scratch, startHub } from "@tempora/testing";
import { afterEach, expect, it, vi } from "vitest";
import { type Observer, silentObserver } from "../results/observer.ts";
import { paperSettings } from "../settings/settings.ts";
import { locateModels } from "./locate-models.ts";

afterEach(() => vi.unstubAllEnvs());

it("finds the run's model and its judge on the hub, and says what is downloaded", async () => {
  const commit = "d".repeat(40);
  const model = { "config.json": Buffer.from("{}"), "model.safetensors": Buffer.alloc(5_000, 1) };
  const hub = await startHub({
    "org/policy": { commits: { [commit]: model }, refs: { main: commit } },
    "org/judge": { commits: { [commit]: model }, refs: { v1: commit } },
  });
  const cache = await scratch();
  vi.stubEnv("HF_ENDPOINT", hub.url);
  vi.stubEnv("HF_HUB_CACHE", cache);
  const told: unknown[] = [];
  const observer: Observer = {
    ...silentObserver,
    begin: ({ label, total, unit }) => told.push([label, total, unit]),
    finish: (id) => told.push(id),
  };
  const settings = {
    ...paperSettings,
    model: "org/policy",
    judge: { ...paperSettings.judge, role: "external" as const, model: "org/judge@v1" },
  };
  const located = await locateModels(settings, observer, undefined);
  expect(located.model).toBe(join(cache, "models--org--policy", "snapshots", commit));
  expect(located.judge.model).toBe(join(cache, "models--org--judge", "snapshots", commit));
  expect(told).toEqual([
    ["download org/policy", 5_002, "bytes"],
    "download org/policy",
    ["download org/judge@v1", 5_002, "bytes"],
    "download org/judge@v1",
  ]);
  expect(await locateModels({ ...settings, model: cache }, silentObserver, undefined)).toMatchObject({ model: cache });
  expect(await locateModels(paperSettings, silentObserver, undefined)).toEqual(paperSettings);
});
