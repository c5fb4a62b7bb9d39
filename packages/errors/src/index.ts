export * from "./error.ts";
export * from "./files.ts";
