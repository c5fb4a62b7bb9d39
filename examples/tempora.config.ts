/**
 * A run of one's own: `bun run train examples/tempora.config.ts`. Everything that is left out keeps its default; flags of
 * the command line override what is here. Every setting: packages/run/src/settings/settings.ts.
 */
import { defineConfig } from "@tempora/run";

export default defineConfig({
  run: "length-controlled",
  strategy: "temporal",
  baselines: ["self-rewarding", "past-only"],
  iterations: 3,
  promptsPerIteration: 400,
  candidates: 7,
  judge: { judgements: 3, aggregation: "mean" },
  // Meta-Rewarding's length control: the shortest of the best answers, the longest of the worst.
  selection: { lengthControl: { rho: 0.1 } },
  loss: { terms: [{ type: "sigmoid", weight: 1 }], beta: 0.3, sftWeight: 0.3 },
});
