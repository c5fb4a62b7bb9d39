import { spawn } from "node:child_process";
import { mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { describeRealModel, oracle, readLines, scratch } from "@tempora/testing";
import { expect, test } from "vitest";
import { startTempora, tempora } from "./support/cli.ts";

const root = fileURLToPath(new URL("..", import.meta.url));

interface Block {
  /** As "sh", "sh fails", "sh serves" or "ts [file.ts]". */
  info: string;
  text: string;
}

const page = (name: string) => readFileSync(join(root, "docs", `${name}.md`), "utf8");

function blocks(name: string): Block[] {
  return [...page(name).matchAll(/^```([^\n]+)\n(.*?)^```$/gms)].map(([, info = "", text = ""]) => ({ info, text }));
}

interface Place {
  cwd: string;
  /** The checkpoint that the pages call MODEL. */
  model: string;
  /** More arguments for a command, so that it takes seconds. */
  smaller: Readonly<Record<string, readonly string[]>>;
  /** Where a server answers that was started on a free port instead of the pages' own. */
  served?: string;
}

const pagesServer = "http://127.0.0.1:8000";

/** An empty project that has the packages. */
async function project(model: string, smaller: Place["smaller"] = {}): Promise<Place> {
  const cwd = await scratch();
  symlinkSync(join(root, "node_modules"), join(cwd, "node_modules"));
  writeFileSync(join(cwd, "package.json"), JSON.stringify({ type: "module" }));
  return { cwd, model, smaller };
}

function wordsOf(line: string, place: Place): string[] {
  const words = [...line.matchAll(/"([^"]*)"|(\S+)/g)].map(([, quoted, plain]) => quoted ?? plain ?? "");
  const served = place.served ?? pagesServer;
  return words.map((word) => (word === "MODEL" ? place.model : word.replace(pagesServer, served)));
}

/** Starts the server that the line starts, which stays until the test ends, and returns where it answers. */
async function serveLine(line: string, place: Place): Promise<string> {
  const running = startTempora([...wordsOf(line, place).slice(2), "--port", "0"], { cwd: place.cwd });
  const told = await running.prints(" is served at ");
  return /served at (http:\/\/[^/]+)/.exec(told)?.[1] as string;
}

/** What the line prints. */
async function runLine(line: string, place: Place, how: string): Promise<string> {
  const [program, ...rest] = wordsOf(line, place);
  if (program === "npx" && rest[0] === "tempora") {
    const args = [...rest.slice(1), ...(place.smaller[rest[1] ?? ""] ?? [])];
    const { code, stdout, stderr } = await tempora(args, { cwd: place.cwd });
    expect(code, `${line}\n${stderr}`).toBe(how === "sh fails" ? 1 : 0);
    return how === "sh fails" ? stderr : stdout;
  }
  if (program !== "node") throw new Error(`nothing is known to run "${line}"`);
  const child = spawn(process.execPath, rest, { cwd: place.cwd, stdio: ["ignore", "pipe", "pipe"] });
  const told = { out: "", error: "" };
  child.stdout.on("data", (chunk: Buffer) => {
    told.out += chunk.toString();
  });
  child.stderr.on("data", (chunk: Buffer) => {
    told.error += chunk.toString();
  });
  const code = await new Promise((resolve) => child.on("close", resolve));
  expect(code, `${line}\n${told.error}`).toBe(0);
  return told.out;
}

/** Does what a page says, from its first block to its last, and returns what each line printed. */
async function follow(name: string, place: Place): Promise<Map<string, string>> {
  const printed = new Map<string, string>();
  for (const { info, text } of blocks(name)) {
    const file = /\[(.+)\]$/.exec(info)?.[1];
    if (file !== undefined) {
      mkdirSync(dirname(join(place.cwd, file)), { recursive: true });
      writeFileSync(join(place.cwd, file), text);
      continue;
    }
    if (info === "text") continue;
    if (info === "sh serves") {
      place.served = await serveLine(text.trim(), place);
      continue;
    }
    if (!/^sh( fails)?$/.test(info)) throw new Error(`docs/${name}.md has a block that nothing runs: ${info}`);
    for (const line of text.trim().split("\n")) printed.set(line, await runLine(line, place, info));
  }
  return printed;
}

const line = (printed: Map<string, string>, start: string) =>
  [...printed].find(([command]) => command.startsWith(start))?.[1] ?? "";

test("every page is followed by a test", () => {
  const pages = readdirSync(join(root, "docs")).filter((name) => name.endsWith(".md"));
  expect(pages.toSorted()).toEqual(["engine.md", "index.md", "judging.md", "method.md", "report.md", "tutorial.md"]);
});

test("the first run trains, and its report can be read as the page on it says", async () => {
  const place = await project("");
  await follow("index", place);
  const printed = await follow("report", place);
  expect(line(printed, "node gaps.ts")).toMatch(/^temporal \d+ pairs, gap 0\.\d+$/m);
});

test("the page on the method lists the strategies and picks the past model's worst answer", async () => {
  const printed = await follow("method", await project(""));
  expect(line(printed, "node")).toContain('chosen "clear and complete", rejected "beside the point"');
});

test("the page on the engine scores, trains and generates", async () => {
  const printed = await follow("engine", await project(oracle("llama", "policy")));
  expect(line(printed, "node score.ts")).toMatch(/^An apple\. -\d+\.\d+\nA car\. -\d+\.\d+$/m);
  expect(line(printed, "node dpo-step.ts")).toMatch(/step 1 {2}loss 0\.693/);
  expect(line(printed, "node generate.ts").trim().split("\n").length).toBe(4);
});

describeRealModel("the pages on the real model", (file) => {
  test("the tutorial works from its first line to its last, with fewer prompts", async () => {
    const train = [
      "--prompts-per-iteration",
      "6",
      "--candidates",
      "3",
      "--iterations",
      "1",
      "--max-new-tokens",
      "24",
      "--no-page",
    ];
    const smaller = [...train, "--set", "evaluation.prompts=4", "--set", "selection.truncated=keep"];
    const place = await project(file, { train: smaller });
    symlinkSync(file, join(place.cwd, "SmolLM2-135M-Instruct.Q4_1.gguf"));
    await follow("tutorial", place);
    expect(readLines(join(place.cwd, "prompts.jsonl"))).toEqual(readLines(join(root, "examples/prompts.jsonl")));
    expect(readdirSync(join(place.cwd, "runs/bullets/models"))).toContain("M1");
  }, 300_000);

  test("the page on judging asks the model and a function, and trains on what a function said", async () => {
    const place = await project(file);
    const printed = await follow("judging", place);
    for (const name of ["expected.jsonl", "scored.jsonl"]) expect(readLines(join(place.cwd, name)).length).toBe(2);
    expect(line(printed, "npx tempora judge --model MODEL --judge sampled")).toMatch(
      /of no use here: \d+ of \d+ judgements gave no score/,
    );
    expect(line(printed, "npx tempora judge --judge endpoint")).toMatch(
      /of no use here: \d+ of \d+ judgements gave no score.*\nwhere: http:\/\/127\.0\.0\.1:\d+\/v1/,
    );
    expect(readdirSync(join(place.cwd, "trained"))).toContain("config.json");
  }, 300_000);
});
