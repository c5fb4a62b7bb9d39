export { defaultLimits, type ServerLimits } from "./limits.ts";
export { foreignName, isLoopback, listen } from "./listen.ts";
export type { ServedModel } from "./served-model.ts";
export { type RunningServer, type ServerOptions, startServer } from "./server.ts";
