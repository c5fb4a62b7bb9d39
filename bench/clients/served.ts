import { type ChildProcess, spawn } from "node:child_process";
import { join } from "node:path";
import { TemporaError } from "@tempora/errors";

const cli = join(import.meta.dirname, "../../packages/cli/src/main.ts");

export interface ServedProcess {
  url: string;
  child: ChildProcess;
  /** Ends it as Ctrl-C would. Returns its exit code. */
  stop(): Promise<number | null>;
}

/** Starts `tempora serve` on a free port, in a process of its own. */
export async function startServer(args: readonly string[]): Promise<ServedProcess> {
  const child = spawn(process.execPath, [cli, "serve", ...args, "--port", "0", "--json"], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const ended = new Promise<number | null>((resolve) => child.once("close", resolve));
  const text = await new Promise<string>((resolve, reject) => {
    let printed = "";
    child.stdout?.on("data", (chunk: Buffer) => {
      printed += chunk.toString();
      if (printed.includes("}\n")) resolve(printed);
    });
    void ended.then(() => reject(new TemporaError("The server did not start", { remedy: "See its message above." })));
  });
  return {
    url: (JSON.parse(text) as { url: string }).url,
    child,
    async stop() {
      child.kill("SIGINT");
      return ended;
    },
  };
}
