import { expect, it } from "vitest";
import { tinySettings } from "../loop/tiny.ts";
import { silentObserver } from "../results/observer.ts";
import type { Settings } from "../settings/settings.ts";
import { worldSource } from "../sources/world.ts";
import { tellRunOutlook } from "./run-outlook.ts";

const { engine, ...tiny } = tinySettings();
const settings: Settings = { ...tiny, engine: { ...engine, device: "cpu" } };

it("tells as a run begins what it takes at most, against what the machine has, and how long a step", async () => {
  const notes: string[] = [];
  await tellRunOutlook(settings, worldSource(settings), { ...silentObserver, note: (text) => notes.push(text) });
  expect(notes).toEqual([
    expect.stringMatching(
      /^Memory: training takes about [\d.]+ GiB \(.*workspace .*program .*\), generation .* at most; the machine has [\d.]+ GiB\.$/,
    ),
    expect.stringMatching(/^Time: a training step takes about [\d.]+ m?s where answers are of full length; --dry-run /),
  ]);
});
