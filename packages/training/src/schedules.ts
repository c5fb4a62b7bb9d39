export const schedulers = ["linear", "cosine", "constant"] as const;
export type Scheduler = (typeof schedulers)[number];

/**
 * Factor of the peak learning rate in step `step` (0-based) of `steps`: what transformers' get_scheduler gives for
 * "linear", "cosine" and, with or without warmup, "constant". The first step with warmup has rate 0, as there. Without a
 * number of warmup steps they are a tenth of all.
 */
export function scheduleFactor(scheduler: Scheduler, step: number, steps: number, warmup: number | null): number {
  const warmupSteps = warmup ?? Math.floor(steps / 10);
  if (step < warmupSteps) return step / Math.max(1, warmupSteps);
  if (scheduler === "constant") return 1;
  if (scheduler === "linear") return Math.max(0, (steps - step) / Math.max(1, steps - warmupSteps));
  const progress = (step - warmupSteps) / Math.max(1, steps - warmupSteps);
  return Math.max(0, 0.5 * (1 + Math.cos(Math.PI * progress)));
}
