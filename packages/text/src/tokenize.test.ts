import { rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { TemporaError } from "@tempora/errors";
import { failure, families, oracle, vocabularySize } from "@tempora/testing";
import { describe, expect, test } from "vitest";
import { readAllRows } from "./datasets.ts";
import { completionRow, preferenceRow, promptRow } from "./rows.ts";
import { copyTokenizer } from "./testing.ts";
import { tokenizeCompletion, tokenizePreference, tokenizePrompt } from "./tokenize.ts";
import { Tokenizer } from "./tokenizer.ts";

const load = () => Tokenizer.load(oracle("llama", "policy"));
const file = "rows.jsonl";
const preference = (value: Record<string, unknown>) => preferenceRow({ row: 7, value }, file);
const completion = (value: Record<string, unknown>) => completionRow({ row: 7, value }, file);
const prompt = (value: Record<string, unknown>) => promptRow({ row: 7, value }, file);
const strings = { prompt: "What is it?", chosen: " A cat.", rejected: " A dog, surely." };
const ids = { prompt_ids: [5, 6, 7], chosen_ids: [8, 9], rejected_ids: [10] };

describe("token ids are those of TRL", () => {
  test.each(families)("%s: all 24 conversations of the oracles", async (family) => {
    const tokenizer = await Tokenizer.load(oracle(family, "policy"));
    const expected = await readAllRows(oracle(family, "logprobs.jsonl"));
    const rows = await readAllRows(oracle("preference.jsonl"));
    expect(rows).toHaveLength(24);
    for (const [i, row] of rows.entries()) {
      const got = tokenizePreference(preferenceRow(row, file), tokenizer);
      const { prompt_ids, chosen_ids, rejected_ids } = expected[i]!.value;
      expect(got).toEqual({ promptIds: prompt_ids, chosenIds: chosen_ids, rejectedIds: rejected_ids });
    }
  });

  test("strings, conversations and implied prompts of every oddity, as DPOTrainer 1.13 made them", async () => {
    const tokenizer = await load();
    const golden = oracle("trl_tokenization.jsonl");
    const rows = await readAllRows(golden);
    expect(rows.length).toBeGreaterThan(70);
    const refused: number[] = [];
    for (const { row, value } of rows) {
      const { value: source, ...expected } = value;
      const checked = preferenceRow({ row, value: source as Record<string, unknown> }, golden);
      try {
        const got = tokenizePreference(checked, tokenizer);
        expect({ row, prompt_ids: got.promptIds, chosen_ids: got.chosenIds, rejected_ids: got.rejectedIds }).toEqual({
          row,
          ...expected,
        });
      } catch (error) {
        if (!(error instanceof TemporaError)) throw error;
        expect(error.what).toMatch(/ do not begin with those of the prompt: /);
        refused.push(row);
      }
    }
    // TRL warns of these and cuts at the prompt's length, in the middle of a word or of a run of spaces.
    expect(refused).toEqual([7, 16, 18, 19, 27]);
  });

  test("plain rows of the oracles: the completion decodes to itself and ends in EOS", async () => {
    const tokenizer = await load();
    for (const row of await readAllRows(oracle("preference_plain.jsonl"))) {
      const got = tokenizePreference(preferenceRow(row, file), tokenizer);
      expect(tokenizer.decode(got.promptIds)).toBe(row.value.prompt as string);
      expect(tokenizer.decode(got.chosenIds, { skipSpecial: false })).toBe(`${row.value.chosen}<|im_end|>`);
      expect(tokenizer.decode(got.rejectedIds, { skipSpecial: false })).toBe(`${row.value.rejected}<|im_end|>`);
    }
  });
});

describe("supervised rows and prompts", () => {
  test("give the same ids as the sides of a preference", async () => {
    const tokenizer = await load();
    for (const name of ["preference.jsonl", "preference_plain.jsonl"]) {
      for (const row of await readAllRows(oracle(name))) {
        const both = tokenizePreference(preferenceRow(row, file), tokenizer);
        const value = { prompt: row.value.prompt, completion: row.value.chosen };
        const one = tokenizeCompletion(completion(value), tokenizer);
        expect(one).toEqual({ promptIds: both.promptIds, completionIds: both.chosenIds });
        expect(tokenizePrompt(promptRow(row, file), tokenizer)).toEqual({ promptIds: both.promptIds });
      }
    }
  });

  test("an EOS token that is there already is not doubled", async () => {
    const tokenizer = await load();
    const plain = tokenizeCompletion(completion({ prompt: "a", completion: " b" }), tokenizer);
    const ended = tokenizeCompletion(completion({ prompt: "a", completion: " b<|im_end|>" }), tokenizer);
    expect(ended).toEqual(plain);
  });

  test("template settings of a row reach the template", async () => {
    const folder = await copyTokenizer();
    await writeFile(
      join(folder, "chat_template.jinja"),
      "{{ mood }}{% for m in messages %}{{ m.content }}{% endfor %}",
    );
    const tokenizer = await Tokenizer.load(folder);
    const row = prompt({ prompt: [{ role: "user", content: "hi" }], chat_template_kwargs: { mood: ":)" } });
    expect(tokenizer.decode(tokenizePrompt(row, tokenizer).promptIds)).toBe(":)hi");
  });
});

describe("rows of ids", () => {
  test("pass without a tokenizer", () => {
    expect(tokenizePreference(preference(ids), null)).toEqual({
      promptIds: [5, 6, 7],
      chosenIds: [8, 9],
      rejectedIds: [10],
    });
    const supervised = completion({ prompt_ids: [1], completion_ids: [2] });
    expect(tokenizeCompletion(supervised, null)).toEqual({ promptIds: [1], completionIds: [2] });
    expect(tokenizePrompt(prompt({ prompt_ids: [3] }), null)).toEqual({ promptIds: [3] });
  });

  test("outside the vocabulary are refused, of the model where it is given, else of the tokenizer", async () => {
    const row = preference({ ...ids, chosen_ids: [8, vocabularySize] });
    const tokenizer = await load();
    expect((await failure(() => tokenizePreference(row, tokenizer))).message).toBe(
      `Token id ${vocabularySize} is outside the vocabulary of ${vocabularySize} (rows.jsonl, row 7, field chosen). ` +
        "Give the tokenizer and the ids that belong to the model.",
    );
    expect(tokenizePreference(row, tokenizer, { vocabSize: vocabularySize + 1 }).chosenIds).toEqual([
      8,
      vocabularySize,
    ]);
    expect((await failure(() => tokenizePreference(preference(ids), null, { vocabSize: 6 }))).where.field).toBe(
      "prompt",
    );
  });

  test("text without a tokenizer is refused", async () => {
    const error = await failure(() => tokenizePreference(preference(strings), null));
    expect(error.what).toBe("The row is text, but the model has no tokenizer");
    expect(error.where).toEqual({ file, row: 7, field: "prompt" });
  });
});

describe("the context bounds a row", () => {
  test("a prompt that fills it is refused", async () => {
    const error = await failure(() => tokenizePreference(preference(ids), null, { maxLength: 3 }));
    expect(error.message).toBe(
      "The prompt has 3 tokens, which leaves no room in a context of 3 (rows.jsonl, row 7, field prompt). " +
        "Shorten it, leave out such rows (--skip-too-long), or take a model with a longer context.",
    );
    expect((await failure(() => tokenizePrompt(prompt(ids), null, { maxLength: 2 }))).where.row).toBe(7);
  });

  test("a completion that leads out of it is refused, or cut when asked for", async () => {
    expect((await failure(() => tokenizePreference(preference(ids), null, { maxLength: 4 }))).message).toBe(
      "Prompt and chosen have 5 tokens, more than the context of 4 (rows.jsonl, row 7, field chosen). " +
        "Shorten it, leave out such rows (--skip-too-long), or take a model with a longer context.",
    );
    expect(tokenizePreference(preference(ids), null, { maxLength: 4, truncate: true }).chosenIds).toEqual([8]);
    expect(tokenizePreference(preference(ids), null, { maxLength: 5 }).chosenIds).toEqual([8, 9]);
  });
});

describe("faults carry the row", () => {
  test("a conversation for a tokenizer without a chat template", async () => {
    const folder = await copyTokenizer();
    await rm(join(folder, "chat_template.jinja"));
    const tokenizer = await Tokenizer.load(folder);
    const turns = (content: string) => [{ role: "assistant", content }];
    const row = preference({ prompt: turns("p"), chosen: turns("c"), rejected: turns("r") });
    const error = await failure(() => tokenizePreference(row, tokenizer));
    expect(error.what).toMatch(
      /^The tokenizer has no chat template, which conversations need \(.*tokenizer_config.json\)$/,
    );
    expect(error.where).toEqual({ file, row: 7, field: "prompt" });
    expect(error.remedy).toMatch(/^Add a chat_template.jinja/);
    expect(tokenizePreference(preference(strings), tokenizer).chosenIds.at(-1)).toBe(2);
  });

  test("a string for a tokenizer without EOS", async () => {
    const folder = await copyTokenizer((config) => {
      config.eos_token = null;
    });
    const tokenizer = await Tokenizer.load(folder);
    const error = await failure(() => tokenizePreference(preference(strings), tokenizer));
    expect(error.what).toContain("has no EOS token");
    expect(error.where).toEqual({ file, row: 7, field: "chosen" });
  });

  test("a prompt without tokens", async () => {
    const tokenizer = await load();
    expect((await failure(() => tokenizePrompt(prompt({ prompt: "" }), tokenizer))).message).toBe(
      "The prompt has no tokens (rows.jsonl, row 7, field prompt). Give a prompt of at least one token.",
    );
  });

  test("a prompt whose tokens change when the completion follows is refused, with what differs", async () => {
    const tokenizer = await load();
    const row = preference({ prompt: "i", chosen: "ng cat", rejected: " no" });
    const error = await failure(() => tokenizePreference(row, tokenizer));
    expect(error.message).toBe(
      "The tokens of prompt + chosen do not begin with those of the prompt: from token 1 the prompt alone has " +
        '"i", both together "ing cat<|im_end|>" (rows.jsonl, row 7, field chosen). ' +
        "Leave the space or line break before it to the completion, or give the row as token ids.",
    );
  });
});
