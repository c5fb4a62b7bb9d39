import { configDefaults, defineConfig } from "vitest/config";

/** What takes times, or the memory of its process, which files beside it would disturb. */
const alone = [
  "packages/engine/src/give-back.test.ts",
  "packages/engine/src/lifetime.test.ts",
  "packages/run/src/estimate/step-time.test.ts",
  "scripts/setup/setup.test.ts",
  "test/train.test.ts",
];

export default defineConfig({
  test: {
    pool: "threads",
    testTimeout: 120_000,
    projects: [
      {
        extends: true,
        test: {
          name: "beside",
          include: ["packages/**/*.test.ts", "test/**/*.test.ts", "scripts/**/*.test.ts", "bench/**/*.test.ts"],
          // test/gpu wants a CUDA device: `bun run test:gpu`.
          exclude: [...configDefaults.exclude, "test/gpu/**", ...alone],
          // Half of the time a file waits for a process to start, or for one thread. Native jobs use every core already.
          maxWorkers: 2,
          sequence: { groupOrder: 0 },
        },
      },
      {
        extends: true,
        test: { name: "alone", include: alone, fileParallelism: false, sequence: { groupOrder: 1 } },
      },
    ],
  },
});
