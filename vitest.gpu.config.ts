import { defineConfig } from "vitest/config";

/** What `bun run test:gpu` runs, with TEMPORA_TEST_DEVICE=cuda: the oracles on the device, and the addon's own checks. */
export default defineConfig({
  test: {
    include: ["test/engine-oracles.test.ts", "test/gpu/**/*.test.ts"],
    pool: "threads",
    fileParallelism: false,
    testTimeout: 120_000,
  },
});
