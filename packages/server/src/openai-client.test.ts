import { keyOf } from "@tempora/training";
import OpenAI from "openai";
import { expect, test } from "vitest";
import { byteServer } from "./testing.ts";

const prompt = "Once upon";

async function client(options: Parameters<typeof byteServer>[0] = {}) {
  const { server, model } = await byteServer(options);
  return {
    model,
    openai: new OpenAI({ baseURL: `${server.url}/v1`, apiKey: options.apiKey ?? "none", maxRetries: 0 }),
  };
}

/** What the command `generate` makes of the same prompts and seed, as text. */
async function generated(
  model: Awaited<ReturnType<typeof client>>["model"],
  prompts: readonly (readonly number[])[],
  options: { n: number; maxNewTokens: number; seed: number; temperature?: number },
): Promise<string[]> {
  const texts: string[] = [];
  const stream = model.engine.generate(
    prompts.map((ids, row) => ({ ids, key: keyOf(`row ${row}`) })),
    { ...options, endTokens: model.endTokens },
  );
  for await (const { prompt: index, sample, ids } of stream)
    texts[index * options.n + sample] = model.tokenizer.decode(ids);
  return texts;
}

test("lists the model", async () => {
  const { openai } = await client();
  const models = [];
  for await (const model of openai.models.list()) models.push(model);
  expect(models).toMatchObject([{ id: "bytes", object: "model", owned_by: "tempora" }]);
  expect(await openai.models.retrieve("bytes")).toMatchObject({ id: "bytes" });
  await expect(openai.models.retrieve("other")).rejects.toMatchObject({ status: 404, code: "model_not_found" });
});

test("completes texts as generate does with the same seed", async () => {
  const { openai, model } = await client();
  const prompts = [prompt, "In the beginning"];
  const completion = await openai.completions.create({
    model: "bytes",
    prompt: prompts,
    n: 3,
    seed: 7,
    max_tokens: 40,
  });
  const ids = prompts.map((text) => model.tokenizer.encode(text));
  expect(completion.choices.map(({ text }) => text)).toEqual(
    await generated(model, ids, { n: 3, maxNewTokens: 40, seed: 7 }),
  );
  expect(completion.choices.map(({ index }) => index)).toEqual([0, 1, 2, 3, 4, 5]);
  expect(completion.usage?.prompt_tokens).toBe(25);
  const again = await openai.completions.create({ model: "bytes", prompt: ids, n: 3, seed: 7, max_tokens: 40 });
  expect(again.choices).toEqual(completion.choices);
});

test("streams the text that it gives whole", async () => {
  const { openai } = await client();
  const request = { model: "bytes", prompt, n: 2, seed: 3, max_tokens: 60 };
  const whole = await openai.completions.create(request);
  const stream = await openai.completions.create({ ...request, stream: true, stream_options: { include_usage: true } });
  const texts = ["", ""];
  const reasons: unknown[] = [];
  let usage: unknown = null;
  for await (const chunk of stream) {
    for (const { index, text, finish_reason } of chunk.choices) {
      texts[index] += text;
      if (finish_reason !== null) reasons[index] = finish_reason;
    }
    usage = chunk.usage ?? usage;
  }
  expect(texts).toEqual(whole.choices.map(({ text }) => text));
  expect(reasons).toEqual(whole.choices.map(({ finish_reason }) => finish_reason));
  expect(usage).toEqual(whole.usage);
});

test("chats, whole and in a stream", async () => {
  const { openai, model } = await client();
  const request = {
    model: "bytes",
    messages: [
      { role: "system" as const, content: "Be brief." },
      {
        role: "user" as const,
        content: [
          { type: "text" as const, text: "Hé" },
          { type: "text" as const, text: "llo" },
        ],
      },
    ],
    seed: 5,
    max_completion_tokens: 30,
  };
  const whole = await openai.chat.completions.create(request);
  const ids = model.tokenizer.encode(
    "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHéllo<|im_end|>\n<|im_start|>assistant\n",
  );
  expect(whole.choices[0]?.message).toMatchObject({ role: "assistant" });
  expect([whole.choices[0]?.message.content]).toEqual(
    await generated(model, [ids], { n: 1, maxNewTokens: 30, seed: 5 }),
  );
  expect(whole.usage?.prompt_tokens).toBe(ids.length);
  const stream = openai.chat.completions.stream(request);
  const final = await stream.finalChatCompletion();
  expect(final.choices[0]?.message.content).toBe(whole.choices[0]?.message.content);
  expect(final.choices[0]?.finish_reason).toBe(whole.choices[0]?.finish_reason);
});
