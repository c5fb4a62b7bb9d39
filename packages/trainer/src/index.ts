export * from "./metrics.ts";
export * from "./results.ts";
