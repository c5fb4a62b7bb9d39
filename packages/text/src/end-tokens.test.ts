import { rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { endTokens, withoutEnd } from "./end-tokens.ts";
import { copyTokenizer, editedZoo, zoo, zooFolder } from "./testing.ts";
import { Tokenizer } from "./tokenizer.ts";

const closing = {
  llama3_2: "<|eot_id|>",
  qwen2_5: "<|im_end|>",
  qwen3: "<|im_end|>",
  mistral_nemo: "</s>",
  deepseek_v3: "<｜end▁of▁sentence｜>",
} as const;

describe("end tokens", () => {
  test.each(zoo)("%s: the token with which the template closes a turn", async (name) => {
    const tokenizer = await Tokenizer.load(zooFolder(name));
    expect(endTokens([], tokenizer)).toEqual(tokenizer.encode(closing[name]));
  });

  test("a Qwen2.5 base model stops where its template closes a turn, not only at <|endoftext|>", async () => {
    const folder = await editedZoo("qwen2_5", (config) => {
      config.eos_token = "<|endoftext|>";
    });
    expect(endTokens([151643], await Tokenizer.load(folder))).toEqual([151643, 151645]);
  });

  test("those of the checkpoint, the tokenizer's EOS and the template's are joined", async () => {
    const folder = await copyTokenizer();
    await writeFile(
      join(folder, "chat_template.jinja"),
      "{% for m in messages %}{{ m.content }}<|im_start|>{% endfor %}",
    );
    expect(endTokens([9, 5], await Tokenizer.load(folder))).toEqual([1, 2, 5, 9]);
  });

  test("a template that closes by text, one that refuses the roles, or none, adds nothing", async () => {
    const folder = await copyTokenizer();
    const template = join(folder, "chat_template.jinja");
    await writeFile(template, "{% for m in messages %}{{ m.content }}\n### end\n{% endfor %}");
    expect(endTokens([], await Tokenizer.load(folder))).toEqual([2]);
    await writeFile(template, "{{ raise_exception('no assistant') }}");
    expect(endTokens([], await Tokenizer.load(folder))).toEqual([2]);
    await rm(template);
    expect(endTokens([], await Tokenizer.load(folder))).toEqual([2]);
  });

  test("a completion loses the one that it ends in", () => {
    expect(withoutEnd([4, 2, 5], [2, 5])).toEqual([4, 2]);
    expect(withoutEnd([4, 2, 6], [2, 5])).toEqual([4, 2, 6]);
    expect(withoutEnd([], [2])).toEqual([]);
  });
});
