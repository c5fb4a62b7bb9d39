import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { oracle, readJson, readLines, scratch } from "@tempora/testing";
import { describe, expect, test } from "vitest";
import { tempora, temporaJson } from "./support/cli.ts";

const folder = await scratch();

interface OracleRow {
  prompt_ids: number[];
  chosen_ids: number[];
  rejected_ids: number[];
  chosen_logprobs: number[];
}

/** How far a model's log-probs lie from transformers', on the oracle's conversations: at worst, and on average. */
async function distance(model: string, family: string): Promise<{ worst: number; mean: number }> {
  const out = `${model}.logprobs.jsonl`;
  await temporaJson([
    "logprobs",
    "--model",
    model,
    "--data",
    oracle("preference.jsonl"),
    "--out",
    out,
    "--dtype",
    "f32",
  ]);
  const truth = readLines<OracleRow>(oracle(family, "logprobs.jsonl"));
  const rows = readLines<OracleRow>(out);
  expect(rows.length).toBe(truth.length);
  const differences = rows.flatMap(({ chosen_logprobs }, row) =>
    chosen_logprobs.map((value, i) => Math.abs(value - truth[row]!.chosen_logprobs[i]!)),
  );
  const mean = differences.reduce((sum, value) => sum + value, 0) / differences.length;
  return { worst: Math.max(...differences), mean };
}

describe("export", () => {
  test.each(["llama", "llama3", "qwen2", "qwen3", "mistral"])(
    "%s as GGUF and back as a folder gives the same log-probs",
    async (family) => {
      const [gguf, back] = [join(folder, `${family}.gguf`), join(folder, `${family}-back`)];
      await temporaJson(["export", "--model", oracle(family, "policy"), "--out", gguf, "--type", "f32"]);
      await temporaJson(["export", "--model", gguf, "--out", back]);
      expect((await distance(gguf, family)).worst).toBeLessThan(1e-4);
      expect((await distance(back, family)).worst).toBeLessThan(1e-4);
      expect(readFileSync(join(back, "chat_template.jinja"))).toEqual(
        readFileSync(oracle(family, "policy", "chat_template.jinja")),
      );
    },
  );

  test.each([
    ["f16", 5e-3],
    ["bf16", 4e-2],
    ["q8_0", 1e-1],
  ])("GGUF in %s is near on average", async (type, bound) => {
    const gguf = join(folder, `qwen3-${type}.gguf`);
    const result = await temporaJson(["export", "--model", oracle("qwen3", "policy"), "--out", gguf, "--type", type]);
    expect(result).toMatchObject({ format: "gguf", type, notes: [] });
    expect((await distance(gguf, "qwen3")).mean).toBeLessThan(bound);
  });

  test("a card that is there is left as it is, and said not to be this file's", async () => {
    const args = ["export", "--model", oracle("llama", "policy"), "--out", join(folder, "again.gguf")];
    const card = join(folder, "again.md");
    expect(await temporaJson(args)).toMatchObject({ card, notes: [] });
    writeFileSync(card, "mine");
    expect(await temporaJson([...args, "--type", "q8_0"])).toMatchObject({
      card: null,
      notes: [`${card} is there already and was left as it is: it may describe another file.`],
    });
    expect(readFileSync(card, "utf8")).toBe("mine");
  });

  test("a folder in bitsandbytes' NF4 is what a model quantized as it is read computes", async () => {
    const plain = oracle("qwen3", "policy");
    const out = join(folder, "qwen3-nf4");
    const result = await temporaJson(["export", "--model", plain, "--out", out, "--type", "nf4"]);
    expect(result).toMatchObject({ format: "hf", type: "nf4", notes: [] });
    const flags = ["--data", oracle("preference.jsonl"), "--dtype", "f32"];
    const [read, kept, quantized] = ["read", "kept", "quantized"].map((name) => join(folder, `nf4-${name}.jsonl`));
    await temporaJson(["logprobs", "--model", out, ...flags, "--out", read!]);
    await temporaJson(["logprobs", "--model", out, ...flags, "--out", kept!, "--quantize", "nf4"]);
    await temporaJson(["logprobs", "--model", plain, ...flags, "--out", quantized!, "--quantize", "nf4"]);
    expect(readFileSync(kept!, "utf8")).toBe(readFileSync(quantized!, "utf8"));
    const [some, others] = [read!, kept!].map((file) => readLines<OracleRow>(file));
    const differences = some!.flatMap(({ chosen_logprobs }, row) =>
      chosen_logprobs.map((value, i) => Math.abs(value - others![row]!.chosen_logprobs[i]!)),
    );
    expect(Math.max(...differences)).toBeLessThan(1e-3);
  });

  test("a model of a run takes its run's settings along", async () => {
    const run = join(folder, "run");
    mkdirSync(join(run, "models"), { recursive: true });
    await temporaJson(["export", "--model", oracle("llama", "policy"), "--out", join(run, "models/M1")]);
    writeFileSync(
      join(run, "run.json"),
      JSON.stringify({
        format: 2,
        status: "finished",
        codeVersion: "0123456789abcdef",
        settings: { model: "org/base@main", strategy: "temporal", loss: { beta: 0.1 }, prompts: "/somewhere/p.jsonl" },
        device: { device: "cpu", name: "a CPU", dtype: "f32" },
        graded: false,
        start: {},
        strategies: [],
      }),
    );
    const out = join(folder, "released");
    await temporaJson(["export", "--model", join(run, "models/M1"), "--out", out, "--name", "A model"]);
    const card = readFileSync(join(out, "README.md"), "utf8");
    expect(card).toMatch(/^---\nbase_model: "org\/base"\nlibrary_name: transformers\n/);
    expect(card).toMatch(/tags: \[tempora, dpo, self-rewarding, temporal-self-rewarding\]\n---\n\n# A model\n/);
    expect(card).toContain("| loss.beta | 0.1 |");
    expect(card).not.toContain("/somewhere");
    expect(readdirSync(out)).not.toContain("run.json");
  });

  test("answers of a run and of generate go to AlpacaEval and Arena-Hard", async () => {
    const [answers, samples] = [join(folder, "M2.jsonl"), join(folder, "samples.jsonl")];
    writeFileSync(
      answers,
      `${JSON.stringify({
        prompt_id: "p1",
        prompt: [
          { role: "system", content: "Be brief." },
          { role: "user", content: "Why?" },
        ],
        text: "So.",
        tokens: 3,
      })}\n`,
    );
    writeFileSync(
      samples,
      `${JSON.stringify({ question_id: 81, prompt: "Why?", completions: [{ text: "So.", ids: [1, 2] }] })}\n`,
    );
    const [alpaca, arena] = [join(folder, "alpaca.json"), join(folder, "arena.jsonl")];
    await temporaJson(["export", "--answers", "alpaca-eval", "--data", answers, "--out", alpaca]);
    expect(readJson(alpaca)).toEqual([{ instruction: "Why?", output: "So.", generator: "M2" }]);
    await temporaJson(["export", "--answers", "arena-hard", "--data", samples, "--out", arena, "--name", "mine"]);
    expect(readLines(arena)).toMatchObject([{ uid: "81", model: "mine", metadata: { token_len: 2 } }]);
    await temporaJson(["export", "--answers", "arena-hard", "--data", answers, "--out", arena]);
    const [row] = readLines<{ tstamp: number }>(arena);
    expect(row).toMatchObject({ uid: "p1", model: "M2", metadata: { token_len: 3 } });
    expect(Math.abs((row?.tstamp ?? 0) - Date.now() / 1000)).toBeLessThan(600);
    const turns = ["Why?", "Because.", "And?"].map((content, k) => ({ role: k % 2 ? "assistant" : "user", content }));
    writeFileSync(samples, `${JSON.stringify({ prompt: turns, text: "So.", tokens: 1 })}\n`);
    const long = await tempora(["export", "--answers", "arena-hard", "--data", samples, "--out", arena]);
    expect(long.stderr).toMatch(/no single user's turn.*\nwhere: .*samples\.jsonl, row 1, field prompt/);
  });

  test.each([
    [["--model", oracle("llama", "policy"), "--out", "x", "--type", "q8_0"], /folder is written in f32, bf16 or nf4/],
    [["--model", oracle("llama", "policy"), "--out", "x.gguf", "--type", "nf4"], /GGUF file is not written in nf4/],
    [["--model", oracle("llama", "policy"), "--out", "x", "--format", "gguf"], /name ends in .gguf/],
    [["--out", "x"], /--model <model> is missing/],
    [["--answers", "arena-hard", "--out", "x"], /--data <file> is missing/],
  ])("%j is refused", async (flags, message) => {
    const { code, stderr } = await tempora(["export", ...flags]);
    expect(code).not.toBe(0);
    expect(stderr).toMatch(message);
  });
});
