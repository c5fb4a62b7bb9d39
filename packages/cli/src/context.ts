import type { Progress } from "./progress.ts";

/** What a command is given besides its own options. */
export interface Context {
  /** Aborted by the first Ctrl-C. */
  readonly signal: AbortSignal;
  /** --json: the result is one JSON document on standard output. */
  readonly json: boolean;
  /** Progress goes to standard error, always. */
  readonly progress: Progress;
  /** Prints the result: the value with --json, else the text. Called once, when the work is done. `exitCode`: default 0. */
  result(value: object, text: string, exitCode?: number): void;
  /** Takes Ctrl-C for as long as a piece of work runs, which it stops instead of the command; null gives it back. */
  takeInterrupts(handler: (() => void) | null): void;
  /** How to go on after Ctrl-C; printed when the command was stopped. */
  onStopped(hint: string): void;
}

/** Thrown where a command notices that it was stopped; never shown as a fault. */
export class Stopped extends Error {
  override readonly name = "Stopped";
}

/** Leaves the command when Ctrl-C was pressed. */
export function throwIfStopped(signal: AbortSignal): void {
  if (signal.aborted) throw new Stopped("stopped by Ctrl-C");
}
