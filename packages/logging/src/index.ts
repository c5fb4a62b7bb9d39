export type { LoggedRow, Outcome } from "./logger.ts";
export { type LoggerKind, Loggers, loggerKinds } from "./loggers.ts";
