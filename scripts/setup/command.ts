import { spawn } from "node:child_process";
import { resolve } from "node:path";

/** The repository's root folder. */
export const root = resolve(import.meta.dirname, "../..");

/** A step that could not be done, worded for the user: what is wrong and what to do. */
export class SetupError extends Error {
  override readonly name = "SetupError";
}

/** One line to the terminal. On stderr, because stdout belongs to the command that runs after the set-up. */
export function say(line: string): void {
  process.stderr.write(`${line}\n`);
}

export interface RunOptions {
  cwd?: string;
  env?: Record<string, string>;
  /** Where the command's stdout goes; stderr is always inherited. */
  stdout?: "stderr" | "inherit";
}

/** Runs a command to its end and returns its exit code; 128 + signal number when a signal ended it. */
export function run(command: readonly string[], options: RunOptions = {}): Promise<number> {
  const [file, ...args] = command;
  if (file === undefined) throw new Error("an empty command");
  return new Promise((done, fail) => {
    const child = spawn(file, args, {
      cwd: options.cwd ?? root,
      env: { ...process.env, ...options.env },
      stdio: ["ignore", options.stdout === "inherit" ? "inherit" : process.stderr, "inherit"],
    });
    child.on("error", (cause) => fail(new SetupError(`${file} could not be started: ${cause.message}`)));
    child.on("exit", (code, signal) => done(code ?? (signal === "SIGINT" ? 130 : 143)));
  });
}
