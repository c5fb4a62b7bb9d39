/**
 * One DPO step on the native engine: load, pack, step, update.
 *
 *     bun examples/native-dpo-step.ts CHECKPOINT
 */
import { Engine, ForestBuilder, type PreferencePair } from "@tempora/engine";
import { openCheckpoint } from "@tempora/models";
import { Tokenizer } from "@tempora/text";

const folder = process.argv[2];
if (folder === undefined) throw new Error("usage: bun examples/native-dpo-step.ts CHECKPOINT");

const tokenizer = await Tokenizer.load(folder);
using engine = await Engine.load(await openCheckpoint(folder));

// A forest holds each prompt once: chosen and rejected are its children.
const rows = [
  { prompt: "Name a fruit.\n", chosen: "An apple.", rejected: "A car." },
  { prompt: "Count to three.\n", chosen: "1 2 3", rejected: "1 3 2" },
];
const builder = new ForestBuilder();
const leaves = rows.map((row) => {
  const prompt = builder.add(tokenizer.encode(row.prompt), -1, false);
  return {
    chosen: builder.add(tokenizer.encode(row.chosen), prompt),
    rejected: builder.add(tokenizer.encode(row.rejected), prompt),
  };
});
const forest = builder.build();

// Before the first step the policy is its own reference: one pass gives the reference log-probs, no second model is held.
const { node } = await engine.logProbs(forest);
const pairs: PreferencePair[] = leaves.map(({ chosen, rejected }) => ({
  chosen,
  rejected,
  referenceChosen: node[chosen] as number,
  referenceRejected: node[rejected] as number,
}));

const loss = { terms: [{ type: "sigmoid", weight: 1 }], beta: 0.1 } as const;
for (let step = 1; step <= 3; step++) {
  const result = await engine.preferenceStep(forest, pairs, loss);
  const { gradNorm } = await engine.optimizerStep({ learningRate: 1e-4, maxGradNorm: 1 });
  console.log(`step ${step}  loss ${result.loss.toFixed(4)}  gradient norm ${gradNorm.toFixed(3)}`);
}
