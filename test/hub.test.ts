import { existsSync, lstatSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { oracle, readLines, scratch, startHub } from "@tempora/testing";
import { expect, test } from "vitest";
import { startTempora, tempora } from "./support/cli.ts";

const commit = "c".repeat(40);

/** The oracles' small model on a hub, and an empty cache. */
async function site() {
  const policy = oracle("llama", "policy");
  const files = Object.fromEntries(readdirSync(policy).map((name) => [name, readFileSync(join(policy, name))]));
  const hub = await startHub({ "org/tiny": { commits: { [commit]: files }, refs: { main: commit } } });
  const folder = await scratch();
  const data = join(folder, "rows.jsonl");
  const row = { prompt: "Say hello.", chosen: "Hello.", rejected: "No." };
  writeFileSync(data, `${JSON.stringify(row)}\n`);
  const env = { HF_ENDPOINT: hub.url, HF_HOME: join(folder, "hf"), HF_HUB_CACHE: "" };
  return { policy, hub, folder, data, env };
}

test("commands take a hub id: downloaded once, then read from the cache, with the numbers of the folder", async () => {
  const { policy, hub, folder, data, env } = await site();
  const scored = async (model: string) => {
    const out = join(folder, "scored.jsonl");
    const outcome = await tempora(["logprobs", "--model", model, "--data", data, "--out", out], { env });
    expect(outcome).toMatchObject({ code: 0 });
    return { rows: readLines(out), said: outcome.stderr };
  };
  const fromHub = await scored("org/tiny");
  expect(fromHub.said).toMatch(/download org\/tiny: .* bytes in /);
  expect(fromHub.rows).toEqual((await scored(policy)).rows);
  const requested = hub.downloads().length;
  expect((await scored("org/tiny@main")).said).not.toContain("download");
  expect(hub.downloads()).toHaveLength(requested);
});

test("a model trained from a hub id is a folder of real files", async () => {
  const { folder, data, env } = await site();
  const out = join(folder, "trained");
  const { code } = await tempora(["dpo", "--model", "org/tiny", "--data", data, "--out", out, "--lr", "1e-4"], { env });
  expect(code).toBe(0);
  for (const name of readdirSync(out)) expect(lstatSync(join(out, name)).isFile()).toBe(true);
  expect(readdirSync(out)).toContain("tokenizer.json");
});

test("a name that is neither a path nor on the hub is told with both readings", async () => {
  const { folder, data, env } = await site();
  const args = ["logprobs", "--model", "models/M0", "--data", data, "--out", join(folder, "none.jsonl")];
  const { code, stderr } = await tempora(args, { env });
  expect(code).toBe(1);
  expect(stderr).toContain("error: models/M0 is neither a path here nor a model that the hub shows to this account");
});

test("Ctrl-C ends a download at once and keeps what came of it", async () => {
  const { hub, folder, data, env } = await site();
  hub.faults["model.safetensors"] = { cut: { after: 200_000, times: 1, stall: true } };
  const args = ["logprobs", "--model", "org/tiny", "--data", data, "--out", join(folder, "out.jsonl")];
  const running = startTempora(args, { env });
  const blobs = join(folder, "hf", "hub", "models--org--tiny", "blobs");
  const kept = () => {
    const name = existsSync(blobs) ? readdirSync(blobs).find((one) => one.endsWith(".incomplete")) : undefined;
    return name === undefined ? 0 : statSync(join(blobs, name)).size;
  };
  while (kept() < 150_000) await sleep(10);
  running.child.kill("SIGINT");
  const stopped = await running.done;
  expect(stopped.code).toBe(130);
  expect(stopped.stderr).toContain("Stopped. Nothing was written: run the same command again.");
  expect(kept()).toBeGreaterThan(150_000);
  expect((await tempora(args, { env })).code).toBe(0);
  expect(hub.requests.at(-1)?.range).toMatch(/^bytes=[12]\d{5}-$/);
});
