export * from "./error.ts";
export * from "./files.ts";
export * from "./json.ts";
