export { createProgram } from "./program.ts";
export { main } from "./run.ts";
