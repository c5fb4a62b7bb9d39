import { existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { openCheckpoint } from "@tempora/models";
import { editJson, oracle, readLines, scratch } from "@tempora/testing";
import { Tokenizer } from "@tempora/text";
import { describe, expect, test, vi } from "vitest";
import { copyModel } from "./support/checkpoints.ts";
import { tempora, temporaJson } from "./support/cli.ts";

vi.setConfig({ testTimeout: 120_000 });

const folder = await scratch();
const policy = oracle("llama", "policy");

function rowsFile(name: string, rows: readonly unknown[]): string {
  const file = join(folder, name);
  writeFileSync(file, rows.map((row) => `${JSON.stringify(row)}\n`).join(""));
  return file;
}

/** A copy of the model whose template writes the date, and closes a turn by a token that no config states. */
function datedModel(name: string): string {
  const model = copyModel(join(folder, name));
  writeFileSync(
    join(model, "chat_template.jinja"),
    "{{ strftime_now('%d %b %Y') }}{% if thinks %}!{% endif %}" +
      "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_start|>{% endfor %}" +
      "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
  );
  return model;
}

const short = ["--max-new-tokens", "4", "--threads", "1"];

describe("how rows become text is a matter of flags", () => {
  const data = rowsFile("prompts.jsonl", [
    { prompt: "Say hello." },
    { prompt: [{ role: "user", content: [{ type: "text", text: "Say" }] }], chat_template_kwargs: { thinks: false } },
  ]);

  test("generate asks with date, system message and variables, and writes the prompt that was asked", async () => {
    const model = datedModel("dated");
    const out = join(folder, "asked.jsonl");
    const flags = ["--system", "Be brief.", "--chat-template-kwargs", '{"thinks": true}', "--date", "2025-01-31"];
    await temporaJson(["generate", "--model", model, "--data", data, "--out", out, ...short, ...flags]);
    const [first, second] = readLines<{ prompt: object[]; prompt_ids: number[] }>(out);
    const tokenizer = await Tokenizer.load(model);
    expect(tokenizer.decode(first?.prompt_ids ?? [])).toBe("31 Jan 2025!system\nBe brief.user\nSay hello.assistant\n");
    expect(tokenizer.decode(second?.prompt_ids ?? [])).toBe("31 Jan 2025system\nBe brief.user\nSayassistant\n");
    expect(first).toMatchObject({
      prompt: [
        { role: "system", content: "Be brief." },
        { role: "user", content: "Say hello." },
      ],
      chat_template_kwargs: { thinks: true },
    });
    expect(second).toMatchObject({ chat_template_kwargs: { thinks: false } });
  });

  test("generate says of plain prompts that it continues them past the model's template, and of others nothing", async () => {
    const ask = async (name: string, rows: readonly object[], ...flags: string[]) => {
      const files = ["--data", rowsFile(`${name}.jsonl`, rows), "--out", join(folder, `${name}-answers.jsonl`)];
      const { code, stderr } = await tempora(["generate", "--model", policy, ...files, ...short, ...flags]);
      expect(code).toBe(0);
      return stderr;
    };
    const turns = [{ role: "user", content: "Say hello." }];
    const rows = [{ prompt: "Say hello." }, { prompt: turns }, { prompt_ids: [5, 6] }];
    expect(await ask("mixed", rows)).toContain("1 of 3 prompts are plain text, which is continued as it is");
    expect(await ask("briefly", rows, "--system", "Be brief.")).not.toContain("plain text");
    expect(await ask("turns", rows.slice(1))).not.toContain("plain text");
  });

  test("sft writes the end token that the template taught into the trained checkpoint", async () => {
    const model = datedModel("closing");
    const rows = [{ prompt: [{ role: "user", content: "a" }], completion: [{ role: "assistant", content: "b" }] }];
    const out = join(folder, "trained");
    const train = ["--lr", "1e-4", "--epochs", "1", "--threads", "1"];
    await temporaJson(["sft", "--model", model, "--data", rowsFile("sft.jsonl", rows), "--out", out, ...train]);
    const { endTokens } = await openCheckpoint(model);
    expect(endTokens).not.toContain(1);
    expect((await openCheckpoint(out)).endTokens).toEqual([1, ...endTokens].sort((a, b) => a - b));
  });

  test("so do the models of a run", async () => {
    const model = datedModel("looping");
    const config = join(folder, "run.config.mjs");
    const score = "({ answers }) => answers.map((answer) => answer.length)";
    writeFileSync(
      config,
      `export default {
        candidates: 3, selection: { truncated: "keep" }, evaluation: { prompts: 2, judgedPrompts: 2 },
        judge: { kind: "function", functions: [{ name: "length", version: "1", score: ${score} }] },
      };`,
    );
    const prompts = rowsFile(
      "questions.jsonl",
      Array.from({ length: 12 }, (_, k) => ({ prompt: `Question ${k}?` })),
    );
    const run = [
      "--run",
      "looping",
      "--runs",
      join(folder, "runs"),
      "--iterations",
      "1",
      "--prompts-per-iteration",
      "4",
    ];
    const trained = ["train", config, "--model", model, "--prompts", prompts, ...run, ...short];
    const { folder: made } = await temporaJson<{ folder: string }>(trained);
    expect((await openCheckpoint(join(made, "models/M1"))).endTokens).toContain(1);
  });

  test.each([
    ["--date", "31.1.2025", "Give a day, as 2026-01-31."],
    ["--chat-template-kwargs", "[1]", "Give a JSON object"],
  ])("%s %s is refused", async (flag, value, message) => {
    const out = join(folder, "never.jsonl");
    const { code, stderr } = await tempora(["generate", "--model", policy, "--data", data, "--out", out, flag, value]);
    expect(code).toBe(1);
    expect(stderr).toContain(message);
  });
});

describe("what does not fit is found before any work", () => {
  const long = Array.from({ length: 300 }, (_, k) => 3 + (k % 100));
  const rows = [{ prompt_ids: [5, 6] }, { prompt_ids: long }, { prompt_ids: [7] }, { prompt_ids: long }];
  const small = (): string => {
    const model = copyModel(join(folder, `small-${Math.random()}`));
    editJson(join(model, "config.json"), (config) => {
      config.max_position_embeddings = 64;
    });
    return model;
  };

  test("generate ends with the row, or leaves such rows out and counts them", async () => {
    const out = join(folder, "fitting.jsonl");
    const data = rowsFile("long.jsonl", rows);
    const command = ["generate", "--model", small(), "--data", data, "--out", out, ...short];
    const { code, stderr } = await tempora(command);
    expect(code).toBe(1);
    expect(stderr).toContain("The prompt has 300 tokens");
    expect(stderr).toContain("row 2");
    expect(existsSync(out)).toBe(false);
    expect(await temporaJson([...command, "--skip-too-long"])).toMatchObject({ rows: 2, skipped: 2 });
    expect(readLines<{ prompt_ids: number[] }>(out).map(({ prompt_ids }) => prompt_ids)).toEqual([[5, 6], [7]]);
    const tight = await tempora([...command, "--max-new-tokens", "63"]);
    expect(tight.stderr).toContain("leaves no room for the 63 new ones asked for in a context of 64");
  });

  test("sft and logprobs count such rows, and end where none is left", async () => {
    const model = small();
    const examples = [
      { prompt_ids: [5], completion_ids: [6, 2] },
      { prompt_ids: [5], completion_ids: long },
    ];
    const out = join(folder, "logprobs.jsonl");
    const scoring = (data: string) => ["logprobs", "--model", model, "--data", data, "--out", out, "--skip-too-long"];
    expect(await temporaJson(scoring(rowsFile("examples.jsonl", examples)))).toMatchObject({ rows: 1, skipped: 1 });
    const none = await tempora(scoring(rowsFile("none.jsonl", examples.slice(1))));
    expect(none.code).toBe(1);
    expect(none.stderr).toContain("more than the context of 64");
  });

  test("judge leaves such answers unscored", async () => {
    const model = copyModel(join(folder, "judge"));
    const data = rowsFile("answers.jsonl", [
      { prompt: "Count.", completions: [{ text: "1 2 3" }, { text: "one two three ".repeat(2000) }] },
    ]);
    const out = join(folder, "judged.jsonl");
    const command = ["judge", "--model", model, "--data", data, "--out", out, "--judge", "expected", "--threads", "1"];
    const { code, stderr } = await tempora(command);
    expect(code).toBe(1);
    expect(stderr).toMatch(/row 1, field completions\[1\]/);
    expect(await temporaJson([...command, "--skip-too-long"])).toMatchObject({ completions: 2, skipped: 1 });
    const [row] = readLines<{ completions: { score: number | null; judgements: unknown[] }[] }>(out);
    expect(row?.completions[0]?.score).not.toBeNull();
    expect(row?.completions[1]).toMatchObject({ score: null, judgements: [] });
  });
});
