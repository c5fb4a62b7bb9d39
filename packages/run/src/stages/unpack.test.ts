import { join } from "node:path";
import { checkpointHash, openCheckpoint, saveGguf } from "@tempora/models";
import { oracle, scratch } from "@tempora/testing";
import { expect, test } from "vitest";
import { ModelHost } from "../models/model-host.ts";
import { EventLog } from "../results/event-log.ts";
import { silentObserver } from "../results/observer.ts";
import { paperSettings } from "../settings/settings.ts";
import { Store } from "../store/store.ts";
import type { RunContext } from "./context.ts";
import { unpackedFolder } from "./unpack.ts";

test("a run that is given a GGUF file works on a Hugging Face folder, unpacked once", async () => {
  const folder = await scratch();
  const file = join(folder, "model.gguf");
  await saveGguf(await openCheckpoint(oracle("llama3", "policy")), file, { type: "Q8_0", name: "A model" });
  using host = new ModelHost(paperSettings.engine, undefined);
  using events = new EventLog(folder, silentObserver);
  const store = new Store(join(folder, "store"), "code");
  const context = { host, events, store, observer: silentObserver, numerics: null } as Partial<RunContext>;
  const { folder: unpacked, files } = await unpackedFolder(context as RunContext, file);
  expect(Object.keys(files ?? {})).toContain("model.safetensors");
  const checkpoint = await openCheckpoint(unpacked);
  expect(checkpoint).toMatchObject({ format: "huggingface", dtype: "f32" });
  expect(await checkpointHash(unpacked)).toBe(await checkpointHash(file));
  expect((await unpackedFolder(context as RunContext, file)).folder).toBe(unpacked);
  expect(await unpackedFolder(context as RunContext, unpacked)).toEqual({ folder: unpacked });
});
