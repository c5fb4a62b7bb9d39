import { Template } from "@huggingface/jinja";
import { Tokenizer } from "@huggingface/tokenizers";
import { describe, expect, it } from "vitest";
import { chatTemplate, tokenizerFiles } from "./tokenizer-files.ts";
import { special, vocabulary } from "./vocabulary.ts";
import { createWorld } from "./world.ts";

const files = tokenizerFiles();
const config = JSON.parse(files["tokenizer_config.json"]!);
const tokenizer = new Tokenizer(JSON.parse(files["tokenizer.json"]!), config);
const template = new Template(config.chat_template);

function encode(text: string): number[] {
  return tokenizer.encode(text, { add_special_tokens: false }).ids;
}

describe("the tokenizer", () => {
  it("has each token once", () => {
    expect(new Set(vocabulary).size).toBe(vocabulary.length);
    expect(createWorld({ seed: 1 }).modelConfig().vocabSize).toBe(vocabulary.length);
  });

  it("reads every token but the special ones back from text", () => {
    const rest = vocabulary.slice(Object.keys(special).length);
    const ids = encode(rest.join(" "));
    expect(ids).toEqual(rest.map((token) => vocabulary.indexOf(token)));
    expect(tokenizer.decode(ids, { skip_special_tokens: true })).toBe(rest.join(" "));
  });

  it("gives every row of the world one token a word, none of them unknown", () => {
    const world = createWorld({ seed: 3 });
    const rows = [...world.demonstrations(200), ...world.gradedExamples(200)];
    for (const { prompt, completion } of rows) {
      for (const { content } of [...prompt, ...completion]) {
        const ids = encode(content);
        expect(ids).not.toContain(vocabulary.indexOf(special.unknown));
        expect(ids.length).toBe(content.split(/\s+/).filter((token) => token !== "").length);
        expect(tokenizer.decode(ids).split(/\s+/)).toEqual(content.trim().split(/\s+/));
      }
    }
  });

  it("maps foreign words to the unknown token", () => {
    expect(encode("repeat zebra")).toEqual([vocabulary.indexOf("repeat"), vocabulary.indexOf(special.unknown)]);
  });
});

describe("the chat template", () => {
  const user = { role: "user", content: "repeat sun dog" };
  const assistant = { role: "assistant", content: "sun dog" };

  it("spends one token on each turn's start and one on the end of the answer", () => {
    const text = template.render({ messages: [user, assistant], add_generation_prompt: false });
    expect(text).toBe("<user>repeat sun dog<assistant>sun dog<end>");
    const names = encode(text).map((id) => vocabulary[id]);
    expect(names).toEqual(["<user>", "repeat", "sun", "dog", "<assistant>", "sun", "dog", "<end>"]);
  });

  it("makes the prompt a prefix of the conversation, also of several turns", () => {
    const prompt = encode(template.render({ messages: [user], add_generation_prompt: true }));
    const whole = encode(template.render({ messages: [user, assistant, user, assistant] }));
    expect(whole.slice(0, prompt.length)).toEqual(prompt);
    expect(whole.length).toBe(2 * (prompt.length + 3));
  });

  it("refuses other roles", () => {
    expect(() => new Template(chatTemplate).render({ messages: [{ role: "system", content: "x" }] })).toThrow(
      /Only user and assistant turns/,
    );
  });
});
