import { Engine, ForestBuilder, type ModelConfig, type PreferenceLoss, parameterShapes } from "@tempora/engine";
import { countParameters, forestWork, forwardFlops } from "../results/ledger.ts";
import type { Settings } from "../settings/settings.ts";

/** FLOPs a second of this machine, by the ledger's count, and what an optimizer step takes. */
export interface Speed {
  /** Whole forests: prompts and scoring. */
  forward: number;
  /** Forward and backward pass, the backward one counted twice. */
  training: number;
  /** A token at a time, of many answers at once. */
  decoding: number;
  optimizerSecondsPerParameter: number;
  /** What the measurement took. */
  seconds: number;
}

const loss: PreferenceLoss = { terms: [{ type: "sigmoid", weight: 1 }], beta: 0.1 };
/** Weights that the measurement makes at most: with more they take longer to draw than to multiply with. */
const mostParameters = 40e6;
const mostVocabulary = 16384;

/** The same widths with fewer layers and a smaller vocabulary where the model is large: FLOPs a second are the widths'. */
function measured(config: ModelConfig): ModelConfig {
  const vocabSize = Math.min(config.vocabSize, mostVocabulary);
  const small = (layers: number): ModelConfig => ({
    ...config,
    vocabSize,
    layers,
    windows: config.windows.slice(0, layers),
  });
  let layers = 1;
  while (layers < config.layers && countParameters(parameterShapes(small(layers + 1))) <= mostParameters) layers++;
  return small(layers);
}

/** Seconds of work that was done once before: the first call of a kind allocates. */
async function timed(work: () => Promise<unknown>): Promise<number> {
  await work();
  const begun = performance.now();
  await work();
  return (performance.now() - begun) / 1000;
}

/**
 * A few steps of each kind with random weights of the model's shape: seconds, and no weights are read. Other work on the
 * machine makes it slower, as it would the run.
 */
export async function measureSpeed(
  config: ModelConfig,
  options: Pick<Settings["engine"], "device" | "threads"> & { dtype: "f32" | "bf16"; rows: number },
): Promise<Speed> {
  const begun = performance.now();
  const shape = measured(config);
  using engine = await Engine.random(shape, options);
  const builder = new ForestBuilder();
  const length = Math.min(64, Math.floor(shape.maxPositions / 2));
  const ids = (seed: number) => Array.from({ length }, (_, k) => (seed * 7919 + k * 104729) % shape.vocabSize);
  const pairs = [0, 1].map((tree) => {
    const prompt = builder.add(ids(3 * tree + 1), -1, false);
    const [chosen, rejected] = [
      builder.add(ids(3 * tree + 2), prompt, true),
      builder.add(ids(3 * tree + 3), prompt, true),
    ];
    return { chosen, rejected, referenceChosen: 0, referenceRejected: 0 };
  });
  const forest = builder.build();
  const flops = forwardFlops(shape, forestWork(shape, forest));
  const forward = flops / (await timed(() => engine.logProbs(forest)));
  const training = (3 * flops) / (await timed(() => engine.preferenceStep(forest, pairs, loss)));
  const step = await timed(() => engine.optimizerStep({ learningRate: 1e-9 }));
  const decoding = await decodingSpeed(engine, ids(1).slice(0, 8), Math.min(options.rows, 64));
  return {
    forward,
    training,
    decoding,
    optimizerSecondsPerParameter: step / countParameters(parameterShapes(shape)),
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
