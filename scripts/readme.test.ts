import { cpSync, existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { oracle, scratch } from "@tempora/testing";
import { expect, test } from "vitest";
import { root } from "./setup/command.ts";

const readme = readFileSync(join(root, "README.md"), "utf8");
const manifest = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as { scripts: Record<string, string> };

test("the README's engine example is the one that the type checker sees", () => {
  const example = readFileSync(join(root, "examples/dpo-step.ts"), "utf8");
  expect(readme).toContain(example.slice(example.indexOf("\n") + 1));
});

test("every command of the README is there", () => {
  const help = Bun.spawnSync([process.execPath, join(root, "packages/cli/src/main.ts"), "--help"]);
  expect(help.exitCode, help.stderr.toString()).toBe(0);
  const listed = [...help.stdout.toString().matchAll(/^ {2}([a-z]+) .*$/gm)].flatMap((match) => match[1] ?? []);
  const table = [...readme.matchAll(/^\| `([a-z]+)` \| /gm)].flatMap((match) => match[1] ?? []);
  expect(table.toSorted()).toEqual(listed.filter((name) => name !== "help").toSorted());
});

test("every script that the README runs is in package.json", () => {
  const scripts = [...readme.matchAll(/(?<!`)\b(?:bun|bun@1\.4\.5) run ([a-z:]+)/g)].flatMap((match) => match[1] ?? []);
  expect(scripts).toContain("train");
  expect(scripts.filter((name) => manifest.scripts[name] === undefined)).toEqual([]);
});

test("every training that the README shows starts in a clone with nothing beside it", async () => {
  // What the hub would give, as its cache has it: a small model under the name that the README takes.
  const cache = await scratch();
  const folder = join(cache, "models--HuggingFaceTB--SmolLM2-135M-Instruct");
  const commit = "0123456789abcdef0123456789abcdef01234567";
  mkdirSync(join(folder, "refs"), { recursive: true });
  cpSync(oracle("llama", "policy"), join(folder, "snapshots", commit), { recursive: true });
  writeFileSync(join(folder, "refs", "main"), commit);
  const blocks = [...readme.matchAll(/^```sh\n(.*?)^```$/gms)].flatMap((match) => match[1]?.split("\n") ?? []);
  const lines = blocks.flatMap((line) => /run (train\b[^#]*)/.exec(line)?.[1]?.trim().split(" ") ?? []);
  const starts = lines.flatMap((word, k) => (word === "train" ? [k] : []));
  expect(starts.length).toBeGreaterThanOrEqual(3);
  for (const [index, start] of starts.entries()) {
    const words = lines.slice(start, starts[index + 1]);
    const command = [join(root, "packages/cli/src/main.ts"), ...words, "--dry-run", "--max-new-tokens", "4"];
    const env = { ...process.env, HF_HUB_CACHE: cache, HF_HUB_OFFLINE: "1" };
    const { exitCode, stderr } = Bun.spawnSync([process.execPath, ...command], { cwd: root, env });
    expect(exitCode, `${words.join(" ")}: ${stderr}`).toBe(0);
  }
}, 120_000);

test("every file that the README links to exists", () => {
  const links = [...readme.matchAll(/\]\((?!https?:)([^)#]+)\)/g)].flatMap((match) => match[1] ?? []);
  expect(links).toContain("LICENSE");
  expect(links.filter((link) => !existsSync(join(root, link)))).toEqual([]);
});
