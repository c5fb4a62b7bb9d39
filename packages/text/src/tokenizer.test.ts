import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { failure, families, oracle, scratch, vocabularySize } from "@tempora/testing";
import { describe, expect, test } from "vitest";
import { copyTokenizer } from "./testing.ts";
import { Tokenizer } from "./tokenizer.ts";

const oracleTokenizer = () => Tokenizer.load(oracle("llama", "policy"));
const user = (content: string) => ({ role: "user", content });

test("a part of tokenizer.json that only encoding needs is named as the file's", async () => {
  const folder = await scratch();
  const json = JSON.parse(await readFile(join(oracle("llama", "policy"), "tokenizer.json"), "utf8"));
  // What was found by hostile input: a field of another name.
  const { single: _, ...damaged } = json.post_processor;
  await writeFile(join(folder, "tokenizer.json"), JSON.stringify({ ...json, post_processor: damaged }));
  const tokenizer = await Tokenizer.load(folder);
  const error = await failure(() => tokenizer.encode("Hello"));
  expect(error.message).toMatch(/^The tokenizer fails: .*tokenizer.json\). Fetch the file again/);
});

describe("encoding and decoding", () => {
  test.each(families)("%s: sizes and special tokens", async (family) => {
    const tokenizer = await Tokenizer.load(oracle(family, "policy"));
    expect(tokenizer).toMatchObject({
      vocabSize: vocabularySize,
      eosId: 2,
      eosToken: "<|im_end|>",
      padId: 0,
      bosId: null,
    });
    expect(tokenizer.hasChatTemplate).toBe(true);
    expect(tokenizer.folder).toBe(oracle(family, "policy"));
  });

  test.each([
    "",
    " ",
    "  leading and trailing  ",
    "\uFEFFbom, \u2028 and \u00a0",
    "👩‍👩‍👧‍👦🇩🇪 日本語 العربية नमस्ते e\u0301",
    "tabs\tand\r\nlines\n\n\n",
    "\u0000\u001f",
    "x , y . z ! don 't",
    "long".repeat(20_000),
  ])("%j comes back as it was", async (text) => {
    const tokenizer = await oracleTokenizer();
    const ids = tokenizer.encode(text);
    expect(tokenizer.decode(ids)).toBe(text);
    expect(ids.every((id) => id >= 0 && id < vocabularySize)).toBe(true);
  });

  test("spaces are Unicode's, not JavaScript's, where GPT-2's pattern is implied", async () => {
    const tokenizer = await oracleTokenizer();
    const pieces = (text: string) => tokenizer.encode(text).map((id) => tokenizer.decode([id]));
    // U+FEFF is none: of two spaces before it the second goes with it, as before a letter.
    expect(pieces("x  \uFEFF").slice(0, 3)).toEqual(["x", " ", " "]);
    // U+0085 is one: of the space and it, both spaces, only the last is left for the letter.
    expect(tokenizer.encode("x \u0085y")).toEqual([
      ...tokenizer.encode("x"),
      ...tokenizer.encode(" "),
      ...tokenizer.encode("\u0085"),
      ...tokenizer.encode("y"),
    ]);
  });

  test("special tokens are one id in a text, and skipped or kept when decoding", async () => {
    const tokenizer = await oracleTokenizer();
    const ids = tokenizer.encode("<|im_start|>hi<|im_end|>");
    expect([ids[0], ids.at(-1)]).toEqual([1, 2]);
    expect(tokenizer.decode(ids)).toBe("hi");
    expect(tokenizer.decode(Int32Array.from(ids), { skipSpecial: false })).toBe("<|im_start|>hi<|im_end|>");
  });

  test("ids beyond the tokenizer, as of a padded vocabulary, decode to nothing", async () => {
    const tokenizer = await oracleTokenizer();
    expect(tokenizer.decode([])).toBe("");
    expect(tokenizer.decode([600])).toBe("");
    const ids = tokenizer.encode("hi");
    expect(tokenizer.decode([600, ...ids, 99_999])).toBe("hi");
  });

  test("half of a surrogate pair is refused", async () => {
    const tokenizer = await oracleTokenizer();
    expect((await failure(() => tokenizer.encode("a\ud83d"))).what).toBe("The text holds half of a surrogate pair");
  });

  test("what a tokenizer puts around a text is added only when asked for", async () => {
    const folder = await copyTokenizer((config, tokenizer) => {
      config.bos_token = "<|im_start|>";
      tokenizer.post_processor = {
        type: "TemplateProcessing",
        single: [{ SpecialToken: { id: "<|im_start|>", type_id: 0 } }, { Sequence: { id: "A", type_id: 0 } }],
        pair: [],
        special_tokens: { "<|im_start|>": { id: "<|im_start|>", ids: [1], tokens: ["<|im_start|>"] } },
      };
    });
    const tokenizer = await Tokenizer.load(folder);
    expect(tokenizer.bosId).toBe(1);
    const ids = tokenizer.encode("hi");
    expect(tokenizer.encode("hi", { special: true })).toEqual([1, ...ids]);
  });

  test("spaces are cleaned up when the config says so, but never of BPE tokens, as in transformers", async () => {
    const cleans = (config: Record<string, unknown>) => {
      config.clean_up_tokenization_spaces = true;
    };
    const bpe = await Tokenizer.load(await copyTokenizer(cleans));
    expect(bpe.decode(bpe.encode("x , y ."))).toBe("x , y .");
    const words = await Tokenizer.load(
      await copyTokenizer((config, tokenizer) => {
        cleans(config);
        tokenizer.model = { type: "WordLevel", vocab: { x: 3, ",": 4, ".": 5 }, unk_token: "x" };
        tokenizer.pre_tokenizer = { type: "WhitespaceSplit" };
        tokenizer.decoder = null;
      }),
    );
    expect(words.decode(words.encode("x , x ."))).toBe("x, x.");
  });

  test("a named special token that is a mere vocabulary entry is still one token, as in transformers", async () => {
    const folder = await copyTokenizer((config, tokenizer) => {
      config.eos_token = { content: "<|im_end|>", special: true };
      const added = tokenizer.added_tokens as { content: string }[];
      tokenizer.added_tokens = added.filter(({ content }) => content !== "<|im_end|>");
      const model = tokenizer.model as { vocab: Record<string, number> };
      model.vocab["<|im_end|>"] = 2;
    });
    const tokenizer = await Tokenizer.load(folder);
    expect(tokenizer.eosId).toBe(2);
    expect(tokenizer.encode("<|im_end|>")).toEqual([2]);
  });

  test("tokens that only tokenizer_config.json or special_tokens_map.json know count", async () => {
    const folder = await copyTokenizer((config) => {
      config.eos_token = undefined;
      config.added_tokens_decoder = { [vocabularySize]: { content: "<extra>", special: true, normalized: false } };
    });
    await writeFile(join(folder, "special_tokens_map.json"), JSON.stringify({ eos_token: { content: "<extra>" } }));
    const tokenizer = await Tokenizer.load(folder);
    expect(tokenizer).toMatchObject({ eosId: vocabularySize, vocabSize: vocabularySize + 1 });
    expect(tokenizer.encode("<extra>")).toEqual([vocabularySize]);
  });
});

describe("faults of a tokenizer folder are named", () => {
  test("no tokenizer.json", async () => {
    const folder = await scratch();
    expect((await failure(() => Tokenizer.load(folder))).message).toBe(
      `Cannot read the tokenizer: there is no tokenizer.json (${join(folder, "tokenizer.json")}). Fetch it with the model, or let transformers write it: AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER).`,
    );
  });

  test("files that are not JSON, no object, or no tokenizer", async () => {
    const folder = await copyTokenizer();
    const file = join(folder, "tokenizer.json");
    await writeFile(file, "{");
    expect((await failure(() => Tokenizer.load(folder))).what).toMatch(/^Not valid JSON: /);
    await writeFile(file, "[]");
    expect((await failure(() => Tokenizer.load(folder))).what).toBe("The file must hold a JSON object");
    await writeFile(file, '{"model": {"type": "Magic"}}');
    const error = await failure(() => Tokenizer.load(folder));
    expect(error.what).toMatch(/^Cannot build the tokenizer: /);
    expect(error.where).toEqual({ file });
  });

  test("an EOS token that the vocabulary lacks", async () => {
    const folder = await copyTokenizer((config) => {
      config.eos_token = "</s>";
    });
    expect((await failure(() => Tokenizer.load(folder))).message).toBe(
      `The eos_token "</s>" is not in the vocabulary (${join(folder, "tokenizer_config.json")}, field eos_token). ` +
        "Take the tokenizer_config.json that belongs to tokenizer.json.",
    );
  });

  test("a text that the vocabulary cannot spell", async () => {
    const folder = await copyTokenizer((_, tokenizer) => {
      tokenizer.model = { type: "WordLevel", vocab: { hi: 3 }, unk_token: "[UNK]" };
      tokenizer.pre_tokenizer = { type: "Whitespace" };
    });
    const tokenizer = await Tokenizer.load(folder);
    const error = await failure(() => tokenizer.encode("hi there"));
    expect(error.what).toBe('The tokenizer has no token for "there"');
  });
});

describe("chat templates", () => {
  const templates = async (value: unknown) => {
    const folder = await copyTokenizer((config) => {
      config.chat_template = value;
    });
    await rm(join(folder, "chat_template.jinja"));
    return folder;
  };
  const render = async (folder: string, messages = [user("hi")], addGenerationPrompt = true) =>
    (await Tokenizer.load(folder)).applyChatTemplate(messages, { addGenerationPrompt });

  test("the oracles' template", async () => {
    const tokenizer = await oracleTokenizer();
    const messages = [user("hi"), { role: "assistant", content: "ho" }];
    const text = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nho<|im_end|>\n";
    expect(tokenizer.applyChatTemplate(messages, { addGenerationPrompt: false })).toBe(text);
    expect(tokenizer.applyChatTemplate(messages, { addGenerationPrompt: true })).toBe(`${text}<|im_start|>assistant\n`);
  });

  test("in tokenizer_config.json, as one text or as the default of several", async () => {
    expect(await render(await templates("{{ messages[0].content }}!"))).toBe("hi!");
    const several = [
      { name: "tool_use", template: "no" },
      { name: "default", template: "yes" },
    ];
    expect(await render(await templates(several))).toBe("yes");
  });

  test("the file wins over the config, chat_template.json stands between", async () => {
    const folder = await templates("config");
    await writeFile(join(folder, "chat_template.json"), JSON.stringify({ chat_template: "json" }));
    expect(await render(folder)).toBe("json");
    await writeFile(join(folder, "chat_template.jinja"), "file");
    expect(await render(folder)).toBe("file");
  });

  test("special tokens, further variables, dates and generation blocks work", async () => {
    const template =
      "{{ bos_token }}{{ eos_token }}{% if tools is none %}-{% endif %}{{ mood }}{{ strftime_now('%Y') }}" +
      "{% generation %}{{ messages[0].content }}{% endgeneration %}";
    const tokenizer = await Tokenizer.load(await templates(template));
    const text = tokenizer.applyChatTemplate([user("hi")], { addGenerationPrompt: true, variables: { mood: ":)" } });
    expect(text).toBe(`<|im_end|>-:)${new Date().getFullYear()}hi`);
  });

  test("a template is told the date that it is given, in English whatever the machine speaks", async () => {
    const tokenizer = await Tokenizer.load(await templates("{{ strftime_now('%d %b %Y, %A %B %-d') }}"));
    const text = tokenizer.applyChatTemplate([user("hi")], { addGenerationPrompt: true, now: new Date(2025, 4, 7) });
    expect(text).toBe("07 May 2025, Wednesday May 7");
  });

  test("strip, trim and selectattr do what Jinja's do", async () => {
    const template =
      "[{{ '\\n x\\n'.strip('\\n') }}|{{ 'xxyx'.lstrip('x') }}|{{ 'yxx'.rstrip('x') }}|{{ '\uFEFF a ' | trim }}|" +
      "{{ messages | selectattr('tool_calls', 'undefined') | list | length }}]";
    expect(await render(await templates(template))).toBe("[ x|yx|y|\uFEFF a|1]");
  });

  test("blocks are trimmed as transformers trims them", async () => {
    const template =
      "{% for message in messages %}\n    {{ message.content }}\n  {% if loop.last %}\nend\n  {% endif %}\n{% endfor %}\n";
    expect(await render(await templates(template))).toBe("    hi\nend\n");
  });

  test("none at all is named when a conversation needs it", async () => {
    const folder = await templates(undefined);
    expect((await Tokenizer.load(folder)).hasChatTemplate).toBe(false);
    expect((await failure(() => render(folder))).message).toBe(
      "The tokenizer has no chat template, which conversations need " +
        `(${join(folder, "tokenizer_config.json")}, field chat_template). ` +
        "Add a chat_template.jinja to the folder, take an instruction-tuned model, or give plain strings.",
    );
  });

  test("a template that refuses, or that cannot be parsed, is named", async () => {
    const folder = await templates("{{ raise_exception('System role not supported') }}");
    const error = await failure(() => render(folder));
    expect(error.what).toBe("The chat template refuses the conversation: System role not supported");
    expect(error.where.file).toBe(join(folder, "tokenizer_config.json"));
    const broken = await failure(async () => Tokenizer.load(await templates("{% for %}")));
    expect(broken.what).toMatch(/^Cannot parse the chat template: /);
    const unnamed = await failure(async () => Tokenizer.load(await templates([{ name: "rag", template: "" }])));
    expect(unnamed.what).toBe('None of the chat templates is named "default"; there are: rag');
    expect((await failure(async () => Tokenizer.load(await templates(3)))).what).toContain(
      "must be a string or a list",
    );
    expect((await failure(() => render(oracle("llama", "policy"), []))).what).toContain("at least one message");
  });

  test("an unreadable template file is named", async () => {
    const folder = await copyTokenizer();
    const file = join(folder, "chat_template.jinja");
    await rm(file);
    await mkdir(file);
    const error = await failure(() => Tokenizer.load(folder));
    expect(error.what).toBe("Cannot read the file: it is a folder");
    await rm(file, { recursive: true });
    await writeFile(join(folder, "chat_template.json"), "{");
    expect((await failure(() => Tokenizer.load(folder))).what).toMatch(/^The file is not valid JSON/);
  });
});
