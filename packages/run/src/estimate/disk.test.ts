import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { parameterShapes } from "@tempora/engine";
import { openCheckpoint } from "@tempora/models";
import { oracle, scratch } from "@tempora/testing";
import { expect, test } from "vitest";
import { paperSettings, type Settings } from "../settings/settings.ts";
import { fileSource } from "../sources/files.ts";
import { storeOf } from "../store/inventory.ts";
import { requireRunDisk } from "./disk.ts";

test("a run is refused where the disk cannot hold its models, and not where the store has them already or adapters fit", async () => {
  const runs = await scratch();
  const prompts = join(runs, "prompts.jsonl");
  await writeFile(prompts, '{"prompt": "a"}\n{"prompt": "b"}\n');
  const settings: Settings = { ...paperSettings, model: oracle("llama", "policy"), prompts, iterations: 3 };
  const source = await fileSource(settings, () => {});
  const refused = (change: Partial<Settings>, free: number) =>
    requireRunDisk({ ...settings, ...change }, source, { runs, free }).then(
      () => null,
      (error: Error) => error.message,
    );
  // Six models in the store, four in the run's folder, and a state of three.
  const model = await oracleBytes();
  expect(await refused({}, 13.2 * model)).toBeNull();
  expect(await refused({}, 12.8 * model)).toMatch(
    /The run's models need about .* of disk, .* are free .*tempora clean/,
  );
  const lora = {
    rank: 2,
    alpha: null,
    rsLora: false,
    targets: "all-linear" as const,
    dropout: 0,
    start: "adapter" as const,
  };
  expect(await refused({ lora }, 4 * model)).toBeNull();
  const stage = join(storeOf(runs), "preference-training", "x", "model");
  await mkdir(stage, { recursive: true });
  await writeFile(join(stage, "model.safetensors"), new Uint8Array(model));
  expect(await refused({}, 12.2 * model)).toBeNull();
});

async function oracleBytes(): Promise<number> {
  const { config } = await openCheckpoint(oracle("llama", "policy"));
  return 4 * parameterShapes(config).reduce((sum, { shape }) => sum + shape.reduce((all, size) => all * size, 1), 0);
}
