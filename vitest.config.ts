import { configDefaults, defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["packages/**/*.test.ts", "test/**/*.test.ts", "scripts/**/*.test.ts", "bench/**/*.test.ts"],
    // Want a CUDA device: `bun run test:gpu`.
    exclude: [...configDefaults.exclude, "test/gpu/**"],
    pool: "threads",
    // One file after another: native jobs use every core already.
    fileParallelism: false,
    testTimeout: 120_000,
  },
});
