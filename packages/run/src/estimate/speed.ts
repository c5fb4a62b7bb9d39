import { Engine, ForestBuilder } from "@tempora/engine";
import { forestWork, forwardFlops } from "../results/ledger.ts";
import { type Machine, measureTraining, narrowed, patternModel, type TrainedShape, timed } from "./step-time.ts";

/** FLOPs a second of this machine, by the ledger's count, and what an optimizer step takes. */
export interface Speed {
  /** Whole forests: prompts and scoring. */
  forward: number;
  /** Forward and backward pass of what is trained. */
  training: number;
  /** A token at a time, of many answers at once. */
  decoding: number;
  /** Of each number that is trained. */
  optimizerSecondsPerParameter: number;
  /** What the measurement took. */
  seconds: number;
}

/** Weights that answering is measured with at most: more layers share what each step does once. */
const most = { weights: 40e6, vocabulary: 16384 };
const pairs = 2;

/**
 * A few steps of each kind with the model's widths: about a second, and no weights are read. Other work on the machine makes it
 * slower, as it would the run. `rows`: answers at once at most.
 */
export async function measureSpeed(model: TrainedShape, machine: Machine & { rows: number }): Promise<Speed> {
  const begun = performance.now();
  const { dtype, quantize } = model;
  const length = Math.min(64, Math.floor(model.config.maxPositions / 2));
  const row = { prompt: length, completions: [length, length], rows: pairs };
  const training = await measureTraining(model, machine, row);
  const shape = narrowed(model.config, most);
  const { rows, ...where } = machine;
  using engine = await Engine.load(patternModel(shape, dtype), {
    ...where,
    dtype,
    quantize: quantize === undefined ? undefined : "nf4",
  });
  const builder = new ForestBuilder();
  const ids = (seed: number) => Array.from({ length }, (_, k) => (seed * 7919 + k * 104729) % shape.vocabSize);
  for (let pair = 0; pair < pairs; pair++) {
    const prompt = builder.add(ids(3 * pair + 1), -1, false);
    for (const side of [2, 3]) builder.add(ids(3 * pair + side), prompt, true);
  }
  const forest = builder.build();
  const flops = forwardFlops(shape, forestWork(shape, forest));
  const forward = flops / (await timed(() => engine.logProbs(forest)));
  const decoding = await decodingSpeed(engine, ids(1).slice(0, 8), Math.min(rows, 64));
  return {
    forward,
    training: training.flopsPerSecond,
    decoding,
    optimizerSecondsPerParameter: training.updateSeconds,
    seconds: (performance.now() - begun) / 1000,
  };
}

async function decodingSpeed(engine: Engine, prompt: number[], rows: number): Promise<number> {
  const tokens = Math.min(16, engine.config.maxPositions - prompt.length);
  let made = 0;
  const seconds = await timed(async () => {
    made = 0;
    const generation = engine.generate([{ ids: prompt, samples: rows }], {
      maxNewTokens: tokens,
      maxRows: rows,
      seed: 1,
    });
    for await (const { ids } of generation) made += ids.length;
  });
  return forwardFlops(engine.config, { tokens: made, attended: 0, headRows: made }) / seconds;
}
