/**
 * Past and current as adapters over one model: the current one is trained against the past, and one batch answers by both and
 * by the model itself.
 *
 *     bun examples/adapters.ts CHECKPOINT
 */
import { Engine, ForestBuilder } from "@tempora/engine";
import { openCheckpoint } from "@tempora/models";

const checkpoint = process.argv[2];
if (checkpoint === undefined) throw new Error("usage: bun examples/adapters.ts CHECKPOINT");

using engine = await Engine.load(await openCheckpoint(checkpoint));
const { adapters } = engine;
await adapters.add("current", { rank: 8, alpha: 16, targets: "all-linear", dropout: 0.05 }, { seed: 1 });
await adapters.activate("current");

const ids = [1, 17, 42];
const builder = new ForestBuilder();
const prompt = builder.share(ids);
const [chosen, rejected] = [builder.share([5, 6, 2], prompt), builder.share([7, 2], prompt)];
const forest = builder.build();
const loss = { terms: [{ type: "sigmoid" as const, weight: 1 }], beta: 0.1 };

for (let iteration = 1; iteration <= 2; iteration++) {
  // The adapter as it is now is the past of what it will be: a copy of its few megabytes.
  const past = `past ${iteration}`;
  await adapters.load(past, adapters.save("current"));
  const { node } = await engine.logProbs(forest);
  const pair = { chosen, rejected, referenceChosen: node[chosen]!, referenceRejected: node[rejected]! };
  for (let step = 1; step <= 3; step++) {
    const result = await engine.preferenceStep(forest, [pair], loss);
    await engine.optimizerStep({ learningRate: 1e-3, maxGradNorm: 1 });
    console.log(`iteration ${iteration}  step ${step}  loss ${result.loss.toFixed(4)}`);
  }
}

const names = ["past 1", "past 2", "current", null];
const prompts = names.map((adapter) => ({ ids, adapter, key: 0 }));
for await (const { prompt: which, ids: answer, logProbs } of engine.generate(prompts, { maxNewTokens: 8, seed: 1 })) {
  const sum = logProbs.reduce((total, value) => total + value, 0);
  console.log(`${names[which] ?? "the model itself"}: ${answer.join(" ")}  log-prob ${sum.toFixed(3)}`);
}
