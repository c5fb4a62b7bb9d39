import { expect, it } from "vitest";
import { Engine } from "./engine.ts";
import { giveBack, oneAtATime } from "./give-back.ts";
import { tinyConfig } from "./testing/models.ts";

const transfers = "transfer" in ArrayBuffer.prototype;

it("gives a tensor back when the next is asked for, with the bytes that it had", async () => {
  using engine = await Engine.random(tinyConfig, { device: "cpu" });
  const whole: Uint8Array[] = [];
  for await (const { bytes } of engine.tensors()) whole.push(bytes);
  const seen: Uint8Array[] = [];
  for await (const { bytes } of oneAtATime(engine.tensors())) {
    expect(bytes).toEqual(whole[seen.length]);
    if (transfers) for (const earlier of seen) expect(earlier.length).toBe(0);
    seen.push(bytes);
  }
  expect(seen.length).toBe(whole.length);
});

it.runIf(transfers && process.platform === "linux")(
  "holds the memory of one large tensor, however many are read",
  async () => {
    const config = { ...tinyConfig, vocabSize: 16384, hiddenSize: 512, heads: 8, kvHeads: 8, headDim: 64 };
    using engine = await Engine.random(config, { device: "cpu" });
    const read = async () => giveBack(await engine.getParameter("model.embed_tokens.weight"));
    for (let k = 0; k < 2; k++) await read();
    const before = process.memoryUsage().rss;
    // 32 MiB each.
    for (let k = 0; k < 16; k++) await read();
    expect(process.memoryUsage().rss - before).toBeLessThan(100 * 2 ** 20);
  },
);
