/**
 * A judge of one's own, weighed with the model's own opinion of quality, which sees what the program does not:
 * `bun run train examples/judge.config.ts --model MODEL --prompts PROMPTS`.
 */
import { defineConfig } from "@tempora/run";
import { bulletPoints } from "./bullets.ts";

export default defineConfig({
  run: "bullets",
  strategy: "self-rewarding",
  stopWhenWorse: 1,
  judge: {
    kind: "function",
    functions: [{ name: "bullets", score: bulletPoints, range: [0, 5], weight: 1 }],
    // M0 judges throughout, so that all models are measured alike.
    role: "frozen",
    quality: { kind: "expected", weight: 0.5 },
  },
});
