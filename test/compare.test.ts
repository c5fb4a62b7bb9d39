import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { oracle, readLines, scratch } from "@tempora/testing";
import { expect, test } from "vitest";
import { tempora, temporaJson } from "./support/cli.ts";

const folder = await scratch();
const [policy, reference] = [oracle("llama", "policy"), oracle("llama", "reference")];
const sampling = ["--max-new-tokens", "8", "--temperature", "0.7", "--seed", "3"];

interface Compared {
  models: string[];
  rows: { prompt: string; answers: { text: string; tokens: number }[][] }[];
}

test("models answer the same prompts as generate does, an adapter's model among them", async () => {
  const prompts = join(folder, "prompts.jsonl");
  const texts = ["The sun", "Two and <b>two</b>", "Never asked"];
  writeFileSync(prompts, texts.map((prompt) => `${JSON.stringify({ prompt })}\n`).join(""));
  const adapted = `${reference}+${oracle("llama", "lora", "adapter")}`;
  const wanted = ["compare", policy, reference, adapted, "--prompts", prompts, "--limit", "2", "--n", "2", ...sampling];
  const { models, rows } = await temporaJson<Compared>(wanted);
  expect(models).toEqual(["llama/policy", "llama/reference", "llama/reference+lora/adapter"]);
  expect(rows.map(({ prompt }) => prompt)).toEqual(texts.slice(0, 2));
  const adapter = ["--adapter", oracle("llama", "lora", "adapter")];
  for (const [index, flags] of [[policy], [reference], [reference, ...adapter]].entries()) {
    const out = join(folder, `generated-${index}.jsonl`);
    await temporaJson(["generate", "--model", ...flags, "--data", prompts, "--out", out, "--n", "2", ...sampling]);
    const generated = readLines<{ completions: { text: string }[] }>(out).slice(0, 2);
    const own = rows.map(({ answers }) => answers[index]?.map(({ text }) => text));
    expect(own).toEqual(generated.map(({ completions }) => completions.map(({ text }) => text)));
  }
  const page = join(folder, "compared.html");
  const written = await tempora([...wanted, "--out", page]);
  expect(written.code, written.stderr).toBe(0);
  const html = readFileSync(page, "utf8");
  expect(html).toContain("Two and &lt;b&gt;two&lt;/b&gt;");
  expect(html.match(/class="answer"/g)).toHaveLength(12);
});

test("a run's models go by their names and answer its held-out prompts, in a table on the terminal", async () => {
  const run = join(folder, "run");
  for (const name of ["M0", "M1"]) mkdirSync(join(run, "models", name), { recursive: true });
  mkdirSync(join(run, "evaluation"));
  writeFileSync(join(run, "evaluation", "M0.jsonl"), `${JSON.stringify({ prompt: "Held out" })}\n`);
  for (const [name, model] of [
    ["M0", reference],
    ["M1", policy],
  ] as const) {
    const files = [
      "config.json",
      "generation_config.json",
      "tokenizer.json",
      "tokenizer_config.json",
      "model.safetensors",
    ];
    for (const file of files) writeFileSync(join(run, "models", name, file), readFileSync(join(model, file)));
  }
  const { code, stdout, stderr } = await tempora(["compare", "M0", "M1", "--run", run, ...sampling]);
  expect(code, stderr).toBe(0);
  const [, header, , prompt] = stdout.split("\n");
  expect(header).toMatch(/║ M0 +│ M1 +║/);
  expect(prompt).toMatch(/║ Held out +║/);
  const missing = await tempora(["compare", "M0", "M9", "--run", run, ...sampling]);
  expect(missing.code).toBe(1);
  expect(missing.stderr).toMatch(/^error: The run has no model M9\nwhere: .*\nremedy: It has M0, M1\.\n$/);
});

test("a model that is not there is told before any other answers", async () => {
  const { code, stderr } = await tempora(["compare", policy, join(folder, "nowhere"), "--prompt", "Hi"]);
  expect(code).toBe(1);
  expect(stderr).toMatch(/^error: There is no model/);
});

test("without a prompt nothing is loaded, and where prompts come from is said", async () => {
  const { code, stderr } = await tempora(["compare", policy, reference]);
  expect(code).toBe(1);
  expect(stderr).toContain("--prompts FILE, --prompt TEXT, or --run FOLDER");
});
