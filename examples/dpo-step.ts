// DPO steps on one pair of token ids: bun examples/dpo-step.ts CHECKPOINT (after `bun run train` there is one to take).
import { Engine, ForestBuilder } from "@tempora/engine";
import { openCheckpoint } from "@tempora/models";

using engine = await Engine.load(await openCheckpoint(process.argv[2] ?? "runs/world-temporal/models/M0"));

const builder = new ForestBuilder();
const prompt = builder.share([1, 17, 42]);
const chosen = builder.share([5, 6, 2], prompt);
const rejected = builder.share([7, 2], prompt);
const forest = builder.build();

// Before training the policy is its own reference: no second model.
const { node } = await engine.logProbs(forest);
const pair = { chosen, rejected, referenceChosen: node[chosen]!, referenceRejected: node[rejected]! };

for (let step = 1; step <= 3; step++) {
  const { loss } = await engine.preferenceStep(forest, [pair], { terms: [{ type: "sigmoid", weight: 1 }], beta: 0.1 });
  const { gradNorm } = await engine.optimizerStep({ learningRate: 1e-4, maxGradNorm: 1 });
  console.log(`step ${step}  loss ${loss.toFixed(4)}  gradient norm ${gradNorm.toFixed(3)}`);
}
