import type { NativeOptimizerOptions } from "./addon.ts";
import { checkNumber } from "./check.ts";
import type { OptimizerStepOptions } from "./engine-types.ts";

/** The native options, with every default filled in and every value checked. */
export function optimizerOptions(options: OptimizerStepOptions): NativeOptimizerOptions {
  const [beta1, beta2] = options.betas ?? [0.9, 0.999];
  return {
    learningRate: checkNumber(options.learningRate, "learningRate", { least: 0 }),
    beta1: checkNumber(beta1, "betas[0]", { least: 0, below: 1 }),
    beta2: checkNumber(beta2, "betas[1]", { least: 0, below: 1 }),
    epsilon: checkNumber(options.epsilon ?? 1e-8, "epsilon", { above: 0 }),
    weightDecay: checkNumber(options.weightDecay ?? 0, "weightDecay", { least: 0 }),
    decayAll: options.decayAll ?? false,
    maxGradNorm: checkNumber(options.maxGradNorm ?? 0, "maxGradNorm", { least: 0 }),
    seed: checkNumber(options.seed ?? 0, "seed", { least: 0, integer: true }),
  };
}
