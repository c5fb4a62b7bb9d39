import { mkdirSync, writeFileSync } from "node:fs";
import { request } from "node:http";
import { join } from "node:path";
import { scratch } from "@tempora/testing";
import { expect, test } from "vitest";
import { startTempora } from "./support/cli.ts";

const folder = await scratch();
const run = join(folder, "runs", "far");
mkdirSync(run, { recursive: true });
const stage = {
  event: "stage",
  strategy: "temporal",
  iteration: 1,
  kind: "answers",
  label: "candidates of M0",
  key: "0",
};
writeFileSync(join(run, "events.jsonl"), `${JSON.stringify(stage)}\n`);

/** Status and the beginning of the answer, under a name of the server that may be another than it listens on. */
function ask(url: string, host: string, until = ""): Promise<{ status: number; text: string }> {
  return new Promise((resolve, reject) => {
    const asked = request(url, { headers: { host } }, (response) => {
      let text = "";
      const answer = () => resolve({ status: response.statusCode ?? 0, text });
      response.on("data", (part: Buffer) => {
        text += part.toString();
        if (until === "" || !text.includes(until)) return;
        answer();
        asked.destroy();
      });
      response.on("end", answer);
      response.on("error", reject);
    });
    asked.on("error", reject);
    asked.end();
  });
}

async function watching(args: readonly string[]) {
  const running = startTempora(["watch", run, "--port", "0", ...args]);
  const url = /http:\S+:\d+/.exec(await running.prints("http://"))?.[0] as string;
  return { url: url.replace("0.0.0.0", "127.0.0.1"), running };
}

test("a page that its own machine shows answers to no other name", async () => {
  const { url } = await watching([]);
  expect((await ask(url, "localhost")).text).toContain("far");
  expect((await ask(url, "elsewhere.example")).status).toBe(403);
});

test("--host shows it to other machines, and a page that loses it is told to look again soon", async () => {
  const { url, running } = await watching(["--host", "0.0.0.0"]);
  expect(await ask(url, "elsewhere.example:80")).toMatchObject({ status: 200 });
  const { text } = await ask(`${url}/events`, "elsewhere.example", "stopped in");
  expect(text).toMatch(/^retry: \d{3}$/m);
  expect(text).toContain("event: page");
  running.child.kill("SIGINT");
  expect((await running.done).code).toBe(0);
});
