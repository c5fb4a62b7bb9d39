export * from "./error.ts";
export * from "./file-reader.ts";
export * from "./files.ts";
export * from "./json.ts";
