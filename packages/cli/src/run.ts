import { CommanderError } from "commander";
import { type Context, Stopped } from "./context.ts";
import { describeFailure, formatFailure } from "./failure.ts";
import { inOurWords } from "./hugging-face-words.ts";
import { createProgram } from "./program.ts";
import { Progress } from "./progress.ts";

/** What shells expect of a program that a signal ended: 128 and the signal's number. */
const stoppedCodes: Partial<Record<NodeJS.Signals, number>> = { SIGINT: 130, SIGTERM: 143 };

/** Runs one command line and returns its exit code: 0 done, 1 a fault or what `doctor` finds not to fit, 130 stopped by Ctrl-C, 143 by SIGTERM. */
export async function main(argv: readonly string[]): Promise<number> {
  const json = argv.includes("--json");
  const debug = argv.includes("--debug") || Boolean(process.env.TEMPORA_DEBUG);
  const controller = new AbortController();
  const progress = new Progress(process.stderr);
  let hint = "";
  let exitCode = 0;
  let taken: (() => void) | null = null;
  const context: Context = {
    signal: controller.signal,
    json,
    progress,
    result: (value, text, code = 0) => {
      exitCode = code;
      progress.clear();
      process.stdout.write(json ? `${JSON.stringify(value, null, 2)}\n` : `${text}\n`);
    },
    takeInterrupts: (handler) => {
      taken = handler;
    },
    onStopped: (text) => {
      hint = text;
    },
  };
  const interrupt = listenForInterrupts(controller, progress, () => taken);
  const program = createProgram(context);
  try {
    if (argv.length === 0) {
      process.stdout.write(program.helpInformation());
      return 1;
    }
    await program.parseAsync(inOurWords(argv), { from: "user" });
    return exitCode;
  } catch (error) {
    progress.clear();
    if (error instanceof CommanderError && error.exitCode === 0) return 0;
    if (controller.signal.aborted && (error instanceof Stopped || isCancellation(error, controller.signal))) {
      process.stderr.write(`Stopped. ${hint}\n`);
      return interrupt.code;
    }
    const known = program.commands.some((command) => command.name() === argv[0]);
    reportFailure(error, known ? (argv[0] as string) : "", { json, debug });
    return 1;
  } finally {
    interrupt.dispose();
    await drain(process.stdout);
    await drain(process.stderr);
  }
}

/** The first signal asks the work to stop, the second one leaves at once; `code` is the first's. */
function listenForInterrupts(
  controller: AbortController,
  progress: Progress,
  taken: () => (() => void) | null,
): { readonly code: number; dispose(): void } {
  let code = 1;
  const onSignal = (signal: NodeJS.Signals) => {
    const handler = taken();
    if (signal === "SIGINT" && handler !== null) {
      handler();
      return;
    }
    if (controller.signal.aborted) process.exit(stoppedCodes[signal]);
    code = stoppedCodes[signal] ?? 1;
    progress.note("Stopping at the next safe point; Ctrl-C again leaves at once.");
    controller.abort(new Stopped(`stopped by ${signal === "SIGINT" ? "Ctrl-C" : signal}`));
  };
  process.on("SIGINT", onSignal);
  process.on("SIGTERM", onSignal);
  return {
    get code() {
      return code;
    },
    dispose: () => {
      process.off("SIGINT", onSignal);
      process.off("SIGTERM", onSignal);
    },
  };
}

/** True for the errors by which the lower layers say that the signal stopped them. */
function isCancellation(error: unknown, signal: AbortSignal): boolean {
  for (let fault: unknown = error; fault instanceof Error; fault = fault.cause) {
    if (fault === signal.reason || fault.name === "AbortError" || fault instanceof Stopped) return true;
  }
  return false;
}

function reportFailure(error: unknown, command: string, { json, debug }: { json: boolean; debug: boolean }): void {
  const failure = describeFailure(error, command);
  process.stderr.write(formatFailure(failure));
  if (debug) process.stderr.write(`${stackOf(error)}\n`);
  if (json) process.stdout.write(`${JSON.stringify({ error: failure }, null, 2)}\n`);
}

/** The stack with those of its causes. */
function stackOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const own = error.stack ?? String(error);
  return error.cause === undefined ? own : `${own}\ncaused by ${stackOf(error.cause)}`;
}

/** Waits until a pipe has taken everything; process.exit would lose the rest. */
function drain(stream: NodeJS.WriteStream): Promise<void> {
  return new Promise((done) => {
    stream.write("", () => done());
  });
}
