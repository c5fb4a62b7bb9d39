import { spawn } from "node:child_process";
import { join } from "node:path";
import { TemporaError } from "@tempora/errors";

/** Runs a program to its end and returns what it printed on stdout; its stderr is shown only when it fails. */
export function run(
  program: string,
  parameters: readonly string[],
  options: { cwd?: string; remedy: string },
): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, parameters, { cwd: options.cwd, stdio: ["ignore", "pipe", "pipe"] });
    let output = "";
    let errors = "";
    child.stdout.on("data", (chunk) => {
      output += chunk;
    });
    child.stderr.on("data", (chunk) => {
      errors += chunk;
    });
    const fail = (what: string, cause?: unknown) =>
      reject(new TemporaError(what, { remedy: options.remedy, ...(cause === undefined ? {} : { cause }) }));
    child.on("error", (cause) => fail(`${program} cannot be started: ${cause.message}`, cause));
    child.on("close", (code, signal) => {
      if (code === 0) return resolve(output);
      fail(`${program} ${parameters.join(" ")} ended with ${signal ?? `exit code ${code}`}:\n${errors.slice(-2000)}`);
    });
  });
}

/** The lines of an output that are JSON objects. */
export function jsonLines<T>(output: string): T[] {
  return output
    .split("\n")
    .filter((line) => line.startsWith('{"'))
    .map((line) => JSON.parse(line) as T);
}

export function say(line: string): void {
  process.stderr.write(`${line}\n`);
}

/** Runs one of this folder's files in a process of its own and reads what it prints. */
export async function own<T>(file: string, parameters: readonly string[] = []): Promise<T[]> {
  const output = await run(process.execPath, [join(import.meta.dirname, file), ...parameters], {
    cwd: join(import.meta.dirname, ".."),
    remedy: "Look at the message above.",
  });
  const lines = jsonLines<T>(output);
  if (lines.length === 0)
    throw new TemporaError(`bench/${file} printed no measurement`, { remedy: "Run it by itself." });
  return lines;
}
