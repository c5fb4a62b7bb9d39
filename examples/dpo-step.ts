// One DPO step on one pair of token ids: bun examples/dpo-step.ts models/M0
import { Engine, ForestBuilder } from "@tempora/engine";
import { openCheckpoint } from "@tempora/models";

using engine = await Engine.load(await openCheckpoint(process.argv[2] ?? "models/M0"));

const builder = new ForestBuilder();
const prompt = builder.share([1, 17, 42]);
const chosen = builder.share([5, 6, 2], prompt);
const rejected = builder.share([7, 2], prompt);
const forest = builder.build();

// Before training the policy is its own reference: no second model.
const { node } = await engine.logProbs(forest);
const pair = { chosen, rejected, referenceChosen: node[chosen]!, referenceRejected: node[rejected]! };

const loss = { terms: [{ type: "sigmoid", weight: 1 }], beta: 0.1 } as const;
const step = await engine.preferenceStep(forest, [pair], loss);
const { gradNorm } = await engine.optimizerStep({ learningRate: 1e-6, maxGradNorm: 1 });
console.log(`loss ${step.loss}, gradient norm ${gradNorm}`);
