/**
 * A loss of one's own, written in TypeScript: the engine needs nothing but dLoss/dLogProb of every token.
 *
 *     bun examples/custom-loss.ts CHECKPOINT
 *
 * Here a margin between the mean log-probs of two answers: max(0, margin - (mean chosen - mean rejected)).
 */
import { Engine, type Forest, ForestBuilder } from "@tempora/engine";
import { openCheckpoint } from "@tempora/models";
import { Tokenizer } from "@tempora/text";

const folder = process.argv[2];
if (folder === undefined) throw new Error("usage: bun examples/custom-loss.ts CHECKPOINT");

const tokenizer = await Tokenizer.load(folder);
using engine = await Engine.load(await openCheckpoint(folder));

const builder = new ForestBuilder();
const prompt = builder.add(tokenizer.encode("Name a fruit.\n"), -1, false);
const chosen = builder.add(tokenizer.encode("An apple."), prompt);
const rejected = builder.add(tokenizer.encode("A car."), prompt);
const forest = builder.build();

const margin = 0.5;
for (let step = 1; step <= 5; step++) {
  const { node } = await engine.logProbs(forest);
  const gap = meanLogProb(forest, node, chosen) - meanLogProb(forest, node, rejected);
  const loss = Math.max(0, margin - gap);
  console.log(`step ${step}  loss ${loss.toFixed(4)}`);
  if (loss === 0) break;
  // d loss / d log-prob: -1/n for each token of the chosen answer, +1/n for each of the rejected one.
  const coefficients = new Float32Array(forest.tokens.length);
  coefficients.fill(-1 / length(forest, chosen), forest.nodeStart[chosen], forest.nodeStart[chosen + 1]);
  coefficients.fill(1 / length(forest, rejected), forest.nodeStart[rejected], forest.nodeStart[rejected + 1]);
  await engine.accumulate(forest, coefficients);
  await engine.optimizerStep({ learningRate: 1e-3 });
}

function length(of: Forest, node: number): number {
  return (of.nodeStart[node + 1] as number) - (of.nodeStart[node] as number);
}

function meanLogProb(of: Forest, sums: Float64Array, node: number): number {
  return (sums[node] as number) / length(of, node);
}
