import { TemporaError } from "@tempora/errors";

/** A strategy cannot go on: its judge is of no use any more, or no prompt gives a pair. */
export class StrategyEnded extends TemporaError {}
