import { type ChildProcess, spawn } from "node:child_process";
import { fileURLToPath } from "node:url";
import { onTestFinished } from "vitest";

const main = fileURLToPath(new URL("../../packages/cli/src/main.ts", import.meta.url));

export interface Outcome {
  /** null when a signal ended it. */
  code: number | null;
  stdout: string;
  stderr: string;
}

export interface Running {
  child: ChildProcess;
  /** Resolves when standard error holds the text; rejects when the process ends before. */
  says(text: string): Promise<void>;
  /** The same, with all of it so far. */
  tells(text: string): Promise<string>;
  /** Resolves when standard output holds the text, with all of it so far; rejects when the process ends before. */
  prints(text: string): Promise<string>;
  done: Promise<Outcome>;
}

/** Starts `tempora ...` as a user would, in a process of its own. */
export function startTempora(
  args: readonly string[],
  options: {
    cwd?: string;
    env?: Record<string, string>;
    /** All of standard input; "open" leaves it to the test. */
    input?: string;
  } = {},
): Running {
  const child = spawn(process.execPath, [main, ...args], {
    cwd: options.cwd,
    env: { ...process.env, TEMPORA_DEBUG: "", ...options.env },
    stdio: [options.input === undefined ? "ignore" : "pipe", "pipe", "pipe"],
  });
  if (options.input !== "open") child.stdin?.end(options.input);
  // A test that fails early leaves no process behind.
  onTestFinished(() => {
    child.kill("SIGKILL");
  });
  const output = { stdout: "", stderr: "" };
  const listeners = new Set<() => void>();
  for (const name of ["stdout", "stderr"] as const) {
    child[name]?.on("data", (chunk: Buffer) => {
      output[name] += chunk.toString();
      for (const listener of listeners) listener();
    });
  }
  const done = new Promise<Outcome>((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code) => resolve({ code, ...output }));
  });
  const holds = (name: keyof typeof output, text: string) =>
    new Promise<string>((resolve, reject) => {
      const check = () => {
        if (!output[name].includes(text)) return;
        listeners.delete(check);
        resolve(output[name]);
      };
      listeners.add(check);
      check();
      void done.then(() => reject(new Error(`ended without saying "${text}":\n${output.stderr}`)));
    });
  const says = async (text: string) => void (await holds("stderr", text));
  return { child, says, tells: (text) => holds("stderr", text), prints: (text) => holds("stdout", text), done };
}

export function tempora(args: readonly string[], options: Parameters<typeof startTempora>[1] = {}): Promise<Outcome> {
  return startTempora(args, options).done;
}

/** Runs a command that must succeed and returns its --json result. */
export async function temporaJson<T>(
  args: readonly string[],
  options: Parameters<typeof startTempora>[1] = {},
): Promise<T> {
  const outcome = await tempora([...args, "--json"], options);
  if (outcome.code !== 0) throw new Error(`tempora ${args.join(" ")} ended with ${outcome.code}:\n${outcome.stderr}`);
  return JSON.parse(outcome.stdout) as T;
}
