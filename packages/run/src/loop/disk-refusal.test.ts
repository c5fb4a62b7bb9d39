import { existsSync } from "node:fs";
import { join } from "node:path";
import { failure, scratch } from "@tempora/testing";
import { expect, test, vi } from "vitest";
import { storeOf } from "../store/inventory.ts";
import { runLoop } from "./loop.ts";
import { tinySettings } from "./tiny.ts";

vi.mock("../estimate/disk.ts", async (original) => ({ ...(await original<object>()), freeBytes: async () => 1000 }));

test("a run whose models the disk cannot hold is refused before anything is computed", async () => {
  const runs = await scratch();
  const run = runLoop({ codeVersion: "test", config: { run: "run", runs, settings: tinySettings() } });
  const { message } = await failure(() => run);
  expect(message).toMatch(/models need about .* of disk, 0\.00 GiB are free \(.*tempora clean/s);
  expect(existsSync(storeOf(runs))).toBe(false);
  expect(existsSync(join(runs, "run", "models"))).toBe(false);
});
