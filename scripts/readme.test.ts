import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
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

test("every file that the README links to exists", () => {
  const links = [...readme.matchAll(/\]\((?!https?:)([^)#]+)\)/g)].flatMap((match) => match[1] ?? []);
  expect(links).toContain("LICENSE");
  expect(links.filter((link) => !existsSync(join(root, link)))).toEqual([]);
});
