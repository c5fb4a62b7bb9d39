import { spawn } from "node:child_process";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";

interface Ending {
  code: number | null;
  signal: string | null;
  output: string;
  errors: string;
  seconds: number;
}

/** Runs a scenario of testing/lifetime.ts in a process of its own; killed, and so failed, after a minute. */
function run(scenario: string): Promise<Ending> {
  const file = fileURLToPath(new URL("./testing/lifetime.ts", import.meta.url));
  const start = performance.now();
  const child = spawn(process.execPath, [file, scenario], { stdio: ["ignore", "pipe", "pipe"], timeout: 60_000 });
  let output = "";
  let errors = "";
  child.stdout.on("data", (chunk) => {
    output += chunk;
  });
  child.stderr.on("data", (chunk) => {
    errors += chunk;
  });
  return new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code, signal) => {
      resolve({ code, signal, output: output.trim(), errors, seconds: (performance.now() - start) / 1000 });
    });
  });
}

test.each([
  ["dispose-in-flight", 0, "disposing twice with work in flight"],
  ["fall-off-the-end", 0, "reaching the end of the program with a call pending, which is finished first"],
  ["exit-in-flight", 7, "process.exit() with work in flight"],
  ["interrupt-in-flight", 0, "an interrupt in the middle of a step"],
  ["worker-terminated", 0, "terminating Workers in the middle of a job, and working on"],
  ["worker-generating-terminated", 0, "terminating a Worker that generates"],
  ["workers-side-by-side", 0, "engines in two Workers and the main thread"],
  ["exit-with-worker-busy", 7, "process.exit() with a Worker's job in flight"],
  ["many-handles", 0, "200 handles with `using`, in flat memory"],
  ["thousand-trainings", 0, "1,000 engines that train, take adapters, generate and end, in flat memory"],
  ["dropped-handles", 0, "60 handles dropped without dispose(), collected by the finalizer"],
])("%s: neither crashes nor hangs", async (scenario, code) => {
  const ending = await run(scenario);
  expect(ending, ending.errors).toMatchObject({ code, signal: null, output: "done" });
});

test("an uncaught error with work in flight ends the process with that error", async () => {
  const ending = await run("throw-in-flight");
  expect(ending).toMatchObject({ code: 1, signal: null, output: "done" });
  expect(ending.errors).toContain("thrown on purpose");
  expect(ending.seconds).toBeLessThan(10);
});

test("a signal with work in flight ends the process by that signal", async () => {
  expect(await run("killed-in-flight")).toMatchObject({ signal: "SIGTERM", output: "done" });
});
