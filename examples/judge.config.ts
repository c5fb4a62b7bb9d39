/**
 * A judge of one's own, weighed with the model's own opinion of quality, which sees what the program does not:
 * `bun run train examples/judge.config.ts --model MODEL`. The prompts ask for exactly three bullet points.
 */
import { defineConfig } from "@tempora/run";
import { bulletPoints } from "./bullets.ts";

export default defineConfig({
  run: "bullets",
  prompts: "examples/prompts.jsonl",
  strategy: "self-rewarding",
  iterations: 2,
  sampling: { maxNewTokens: 112 },
  judge: {
    kind: "function",
    functions: [{ name: "bullets", score: bulletPoints, range: [0, 5], weight: 1 }],
    // M0 judges throughout, so that all models are measured alike.
    role: "frozen",
    quality: { kind: "expected", weight: 0.5 },
  },
  loss: {
    terms: [
      { type: "sigmoid", weight: 1 },
      { type: "sft", weight: 0.2 },
    ],
  },
  training: { learningRate: 5e-6, epochs: 2, batchPairs: 4 },
  evaluation: { sampling: { maxNewTokens: 112 } },
  engine: { dtype: "bf16" },
});
