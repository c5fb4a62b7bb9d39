import { ForestBuilder, type ModelConfig } from "@tempora/engine";
import { describe, expect, it } from "vitest";
import { attendedPositions, blockParameters, forestWork, forwardFlops, Meter } from "./ledger.ts";

const config: ModelConfig = {
  family: "llama",
  vocabSize: 100,
  hiddenSize: 8,
  intermediateSize: 16,
  layers: 2,
  heads: 4,
  kvHeads: 2,
  headDim: 2,
  normEps: 1e-5,
  tiedHead: true,
  qkvBias: false,
  outputBias: false,
  qkNorm: false,
  windows: [0, 3],
  ropeTheta: 10000,
  ropeScaling: null,
  maxPositions: 64,
};

describe("the ledger's FLOPs", () => {
  it("count the block's matrices", () => {
    expect(blockParameters(config)).toBe(2 * (8 * 8 + 8 * 8 + 2 * 8 * 4 + 3 * 8 * 16));
  });

  it("count attended positions one by one, with and without a window", () => {
    let expected = 0;
    for (let position = 2; position < 7; position++) expected += position + 1 + Math.min(position + 1, 3);
    expect(attendedPositions(config, 2, 5)).toBe(expected);
  });

  it("charge a shared prompt once and training three times a scoring pass", () => {
    const builder = new ForestBuilder();
    const prompt = builder.add([1, 2, 3], -1, false);
    builder.add([4, 5], prompt, true);
    builder.add([6], prompt, true);
    const forest = builder.build();
    const work = forestWork(config, forest);
    expect(work).toMatchObject({ tokens: 6, headRows: 3 });
    expect(work.attended).toBe(1 + 2 + 3 + 4 + 5 + 4 + (1 + 2 + 3 + 3 + 3 + 3));
    const meter = new Meter(config);
    meter.score(forest);
    const scored = meter.totals.flops;
    expect(scored).toBe(forwardFlops(config, work));
    meter.train(forest, { checkpointing: false, frozen: false });
    expect(meter.totals).toMatchObject({ flops: 4 * scored, scoredTokens: 6, trainedTokens: 6 });
    meter.train(forest, { checkpointing: true, frozen: true });
    expect(meter.totals).toMatchObject({ flops: 7 * scored, trainedTokens: 12 });
  });
});
