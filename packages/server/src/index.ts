export { defaultLimits, type ServerLimits } from "./limits.ts";
export type { ServedModel } from "./served-model.ts";
export { type RunningServer, type ServerOptions, startServer } from "./server.ts";
