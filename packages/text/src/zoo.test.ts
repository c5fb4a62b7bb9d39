import { oracle, readJson } from "@tempora/testing";
import { describe, expect, test } from "vitest";
import { promptRow } from "./rows.ts";
import { zoo, zooFolder } from "./testing.ts";
import { tokenizePrompt } from "./tokenize.ts";
import { Tokenizer } from "./tokenizer.ts";
import type { Message } from "./types.ts";

/** What Python's tokenizers and transformers make of the same files; test/oracles/README.md says what the fields are. */
interface Oracle {
  now: string;
  encodings: {
    text: string;
    ids: number[];
    ids_with_special: number[];
    ids_as_plain_text: number[];
    decoded: string;
  }[];
  conversations: {
    name: string;
    messages: Message[];
    options: { tools?: unknown; add_generation_prompt?: boolean; continue_final_message?: boolean };
    text?: string;
    ids?: number[];
    error?: string;
  }[];
}

describe.each(zoo)("%s gives what Python gives", (name) => {
  const { now, encodings, conversations } = readJson<Oracle>(oracle("tokenizers", `${name}.json`));
  const loading = Tokenizer.load(zooFolder(name));

  test.each(encodings)("ids of $text", async ({ text, ids, ids_with_special, decoded }) => {
    const tokenizer = await loading;
    expect(tokenizer.encode(text)).toEqual(ids);
    expect(tokenizer.encode(text, { special: true })).toEqual(ids_with_special);
    expect(tokenizer.decode(ids, { skipSpecial: false })).toBe(decoded);
  });

  test.each(encodings)("ids of $text with nothing special in it", async ({ text, ids_as_plain_text }) => {
    const tokenizer = await loading;
    const ids = tokenizer.encodePlain(text);
    expect(ids.some((id) => tokenizer.isAdded(id))).toBe(false);
    // Python's option leaves added tokens that are not marked as special, such as DeepSeek's <｜User｜>.
    if (!ids_as_plain_text.some((id) => tokenizer.isAdded(id))) expect(ids).toEqual(ids_as_plain_text);
  });

  // Two are left out. Content parts: below. "the answer goes on": no command goes on with a message that a row has begun.
  const rendered = conversations.filter(
    ({ name, options }) => name !== "content parts" && options.continue_final_message !== true,
  );
  test.each(rendered)("conversation: $name", async ({ messages, options, text, ids, error }) => {
    const tokenizer = await loading;
    const { tools, add_generation_prompt: addGenerationPrompt = false, ...others } = options;
    const variables = { ...(tools === undefined ? {} : { tools }), ...others };
    const render = () => tokenizer.applyChatTemplate(messages, { addGenerationPrompt, variables, now: new Date(now) });
    if (error !== undefined) return expect(render).toThrow(error.replace("TemplateError: ", ""));
    expect(render()).toBe(text);
    expect(tokenizer.encode(render())).toEqual(ids);
  });

  test("content parts are joined where rows are read: of the list Python makes an error or its own notation", async () => {
    const [parts, joined] = ["content parts", "one question"].map((wanted) =>
      conversations.find((one) => one.name === wanted),
    );
    expect(parts?.error ?? parts?.text).toMatch(/list|\[\{'type': 'text', 'text': 'Name a river.'\}\]/);
    const row = promptRow({ row: 1, value: { prompt: parts?.messages } }, "rows.jsonl");
    expect(tokenizePrompt(row, await loading, { now: new Date(now) }).promptIds).toEqual(joined?.ids);
  });
});
