import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { failure } from "@tempora/testing";
import { describe, expect, test } from "vitest";
import { completionRow, promptRow } from "./rows.ts";
import { copyTokenizer, editedZoo, zoo, zooFolder } from "./testing.ts";
import { type TokenizeOptions, tokenizeCompletion, tokenizePrompt } from "./tokenize.ts";
import { Tokenizer } from "./tokenizer.ts";

const user = (content: string) => ({ role: "user", content });
const assistant = (content: string) => ({ role: "assistant", content });
const tool = { type: "function", function: { name: "river", description: "Names a river.", parameters: {} } };
const thought = "<think>\nA river of Poland.\n</think>\n\nThe Vistula.";

/** Rows whose prompt must be the beginning of the whole, in tokens, or the reason why it is not. */
const cases: { name: string; prompt: object[]; answer: string; columns?: object; refused?: Record<string, RegExp> }[] =
  [
    { name: "a question", prompt: [user("Name a river.")], answer: "The Vistula." },
    {
      name: "several turns",
      prompt: [user("Name a river."), assistant("The Vistula."), user("Another.")],
      answer: "The Oder.",
    },
    { name: "an answer with spaces around it", prompt: [user("Name a river.")], answer: " The Vistula.\n" },
    { name: "tools", prompt: [user("Name a river.")], answer: "The Vistula.", columns: { tools: [tool] } },
    {
      name: "thinking off",
      prompt: [user("Name a river.")],
      answer: "The Vistula.",
      columns: { chat_template_kwargs: { enable_thinking: false } },
    },
    {
      name: "thinking on",
      prompt: [user("Name a river.")],
      answer: thought,
      columns: { chat_template_kwargs: { enable_thinking: true } },
    },
    {
      name: "thoughts where the template has opened and closed them",
      prompt: [user("Name a river.")],
      answer: thought,
      columns: { chat_template_kwargs: { enable_thinking: false } },
      refused: { qwen3: /from token \d+ the prompt alone has .*<\/think>.*, both together .*A river of Poland/s },
    },
  ];

describe.each(zoo)("%s", (name) => {
  const loading = Tokenizer.load(zooFolder(name));

  test.each(cases)("$name: the prompt begins the whole, or the row is refused", async ({ prompt, answer, ...row }) => {
    const tokenizer = await loading;
    const value = { prompt, completion: [assistant(answer)], ...row.columns };
    const tokenize = () => tokenizeCompletion(completionRow({ row: 1, value }, "rows.jsonl"), tokenizer);
    const reason = row.refused?.[name];
    if (reason !== undefined) {
      const error = await failure(tokenize);
      expect(error.what).toMatch(reason);
      expect(error.where).toEqual({ file: "rows.jsonl", row: 1, field: "completion" });
      expect(error.remedy).toContain("chat_template_kwargs");
      return;
    }
    const { promptIds, completionIds } = tokenize();
    expect(promptIds).toEqual(tokenizePrompt(promptRow({ row: 1, value }, "rows.jsonl"), tokenizer).promptIds);
    expect(tokenizer.decode(completionIds)).toContain(answer.trim().split("\n").at(-1));
  });
});

describe("templates of reasoning models", () => {
  const opening =
    "{% for m in messages %}<|im_start|>{{ m.role }}\n" +
    "{% if m.role == 'assistant' %}{{ m.content.split('</think>')[-1] }}{% else %}{{ m.content }}{% endif %}<|im_end|>" +
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}";
  const row = (answer: string) =>
    completionRow({ row: 4, value: { prompt: [user("2 + 2?")], completion: [assistant(answer)] } }, "rows.jsonl");

  test("one that opens a thought which no answer has is refused, with what differs and the remedy", async () => {
    const folder = await copyTokenizer();
    await writeFile(join(folder, "chat_template.jinja"), opening);
    const tokenizer = await Tokenizer.load(folder);
    const error = await failure(() => tokenizeCompletion(row("The answer is certainly four."), tokenizer));
    expect(error.what).toMatch(/^The tokens of prompt \+ completion do not begin with those of the prompt: from token/);
    expect(error.what).toContain("think");
    expect(error.remedy).toMatch(/chat_template_kwargs.*or give the row as token ids\.$/);
    const ids = { prompt_ids: [1, 5, 6], completion_ids: [7, 2] };
    expect(tokenizeCompletion(completionRow({ row: 4, value: ids }, "rows.jsonl"), tokenizer).completionIds).toEqual([
      7, 2,
    ]);
  });

  test("one that drops the thought of an answer is refused", async () => {
    const folder = await copyTokenizer();
    await writeFile(join(folder, "chat_template.jinja"), opening.replace("<think>\n", ""));
    const error = await failure(async () =>
      tokenizeCompletion(row("<think>2 and 2.</think>Four."), await Tokenizer.load(folder)),
    );
    expect(error.message).toBe(
      "The chat template does not keep the whole completion (rows.jsonl, row 4, field completion). " +
        "Take out of the answer what the template drops, or give the row as token ids.",
    );
  });
});

describe("an answer that only calls tools", () => {
  const call = { id: "call12345", type: "function", function: { name: "flows_to", arguments: { river: "Oder" } } };
  /** Of DeepSeek's templates, which write a call only beside content null, and its arguments as they are. */
  const asText = { ...call, function: { ...call.function, arguments: JSON.stringify(call.function.arguments) } };
  const row = (content: string | null, called: object) => {
    const value = {
      prompt: [user("Where does the Oder flow?")],
      completion: [{ role: "assistant", content, tool_calls: [called] }],
      tools: [{ ...tool, function: { ...tool.function, name: "flows_to" } }],
    };
    return completionRow({ row: 2, value }, "calls.jsonl");
  };

  test.each(zoo)("is trained with its call, or refused: %s", async (name) => {
    const tokenizer = await Tokenizer.load(zooFolder(name));
    const deepseek = name === "deepseek_v3";
    if (deepseek) await expect(failure(() => tokenizeCompletion(row("", call), tokenizer))).resolves.toBeDefined();
    const { completionIds } = tokenizeCompletion(deepseek ? row(null, asText) : row("", call), tokenizer);
    const text = tokenizer.decode(completionIds);
    expect(text).toContain("flows_to");
    expect(text).toMatch(/"river": ?"Oder"/);
  });

  test("is refused where the template wants a content beside it, with what to give", async () => {
    const tokenizer = await Tokenizer.load(zooFolder("qwen3"));
    const error = await failure(() => tokenizeCompletion(row(null, call), tokenizer));
    expect(error.what).toMatch(/^The chat template refuses the conversation: /);
    expect(error.remedy).toContain('Give content "" in place of null');
  });

  test("is refused where the template leaves the call out: nothing but its end would be trained", async () => {
    const folder = await copyTokenizer();
    const plain = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}";
    const prompted = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
    await writeFile(join(folder, "chat_template.jinja"), plain + prompted);
    const tokenizer = await Tokenizer.load(folder);
    const error = await failure(() => tokenizeCompletion(row("", call), tokenizer));
    expect(error.message).toBe(
      "The chat template leaves the tool calls of the completion out (calls.jsonl, row 2, field completion). " +
        "Some templates write calls only beside content null; else take one that writes tool_calls, or give the row as token ids.",
    );
  });
});

describe("options of rendering are part of a prompt", () => {
  const ids = (tokenizer: Tokenizer, value: object, options: TokenizeOptions = {}) =>
    tokenizePrompt(promptRow({ row: 1, value: { ...value } }, "rows.jsonl"), tokenizer, options).promptIds;
  const question = { prompt: [user("Name a river.")] };

  test("a system message is put before a prompt that has none, and makes a plain one a user's turn", async () => {
    const tokenizer = await Tokenizer.load(zooFolder("qwen2_5"));
    const system = "Answer in French.";
    const whole = { prompt: [{ role: "system", content: system }, user("Name a river.")] };
    expect(ids(tokenizer, question, { system })).toEqual(ids(tokenizer, whole));
    expect(ids(tokenizer, { prompt: "Name a river." }, { system })).toEqual(ids(tokenizer, whole));
    expect(ids(tokenizer, whole, { system: "Another." })).toEqual(ids(tokenizer, whole));
    const row = completionRow({ row: 1, value: { prompt: "Name a river.", completion: "Oder." } }, "rows.jsonl");
    const { promptIds, completionIds } = tokenizeCompletion(row, tokenizer, { system });
    expect(promptIds).toEqual(ids(tokenizer, whole));
    expect(tokenizer.decode(completionIds, { skipSpecial: false })).toBe("Oder.<|im_end|>\n");
  });

  test("a row's variables of the template override those of the options", async () => {
    const tokenizer = await Tokenizer.load(zooFolder("qwen3"));
    const off = { variables: { enable_thinking: false } };
    const thinks = ids(tokenizer, question);
    expect(ids(tokenizer, question, off)).toEqual([...thinks, ...tokenizer.encode("<think>\n\n</think>\n\n")]);
    expect(ids(tokenizer, { ...question, chat_template_kwargs: { enable_thinking: true } }, off)).toEqual(thinks);
  });

  test("a template that asks for the date is told the given one", async () => {
    const tokenizer = await Tokenizer.load(zooFolder("llama3_2"));
    expect(tokenizer.asksForDate).toBe(true);
    const text = tokenizer.decode(ids(tokenizer, question, { now: new Date(2025, 0, 31) }));
    expect(text).toContain("Today Date: 31 Jan 2025");
    expect((await Tokenizer.load(await editedZoo("qwen3", () => {}))).asksForDate).toBe(false);
  });
});
