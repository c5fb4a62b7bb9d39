import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { type Checkpoint, openCheckpoint, saveGguf } from "@tempora/models";
import { oracle, readJson, scratch } from "@tempora/testing";
import { describe, expect, test } from "vitest";
import { zooFolder } from "./testing.ts";
import { Tokenizer } from "./tokenizer.ts";

/** A small model under a tokenizer of the zoo, whose embedding has a row for every token. */
async function modelWith(folder: string): Promise<Checkpoint> {
  const small = await openCheckpoint(oracle("llama", "policy"));
  const { model, added_tokens } = JSON.parse(await readFile(join(folder, "tokenizer.json"), "utf8"));
  const ids = [...Object.values<number>(model.vocab), ...added_tokens.map(({ id }: { id: number }) => id)];
  const vocabSize = Math.max(...ids) + 1;
  const sources = await Array.fromAsync(small.tensors());
  const shape = [vocabSize, small.config.hiddenSize];
  const read = async () => new Uint8Array(4 * vocabSize * small.config.hiddenSize);
  return {
    ...small,
    path: folder,
    config: { ...small.config, vocabSize },
    tensors: () =>
      sources.map((one) => (/embed_tokens|lm_head/.test(one.name) ? { ...one, shape, dtype: "f32", read } : one)),
    companion: (name) => readFile(join(folder, name)).catch(() => null),
  };
}

// DeepSeek's way to split text has no name among those that are known exactly.
describe.each(["llama3_2", "qwen2_5", "qwen3", "mistral_nemo"] as const)(
  "%s from the metadata of a GGUF file",
  (name) => {
    const { encodings } = readJson<{
      encodings: { text: string; ids: number[]; ids_with_special: number[]; decoded: string }[];
    }>(oracle("tokenizers", `${name}.json`));

    test("gives the ids that Python gives for the tokenizer's own files", async () => {
      const file = join(await scratch(), "model.gguf");
      await saveGguf(await modelWith(zooFolder(name)), file, { type: "Q8_0", name });
      const { path, companion } = await openCheckpoint(file);
      const tokenizer = await Tokenizer.from(path, companion);
      for (const { text, ids, ids_with_special, decoded } of encodings) {
        expect(tokenizer.encode(text), text).toEqual(ids);
        expect(tokenizer.encode(text, { special: true }), text).toEqual(ids_with_special);
        expect(tokenizer.decode(ids, { skipSpecial: false }), text).toBe(decoded);
      }
      const messages = [{ role: "user", content: "Name a river." }];
      const options = { addGenerationPrompt: true, now: new Date("2026-02-03T04:05:06") };
      const own = await Tokenizer.load(zooFolder(name));
      expect(tokenizer.applyChatTemplate(messages, options)).toBe(own.applyChatTemplate(messages, options));
    }, 60_000);
  },
);
