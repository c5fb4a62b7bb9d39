import { ForestBuilder } from "@tempora/engine";
import { describe, expect, test } from "vitest";
import { byteServer, post } from "./testing.ts";

interface Completion {
  choices: {
    index: number;
    text: string;
    finish_reason: string;
    logprobs: {
      tokens: string[];
      token_logprobs: (number | null)[];
      top_logprobs: (Record<string, number> | null)[];
      text_offset: number[];
    };
  }[];
}

describe("log-probs", () => {
  const prompts = ["Once upon a time", "Once upon another", "In the beginning"];

  test("of an echoed prompt are those that scoring gives, one more than the prompt has tokens", async () => {
    const { server, model } = await byteServer();
    const ids = prompts.map((prompt) => model.tokenizer.encode(prompt));
    // As lm-evaluation-harness asks.
    const body = { prompt: ids, echo: true, max_tokens: 1, logprobs: 1, temperature: 0, seed: 1234 };
    const { choices } = (await (await post(`${server.url}/v1/completions`, body)).json()) as Completion;
    for (const [i, list] of ids.entries()) {
      const { index, text, logprobs } = choices[i] as Completion["choices"][0];
      expect(index).toBe(i);
      expect(text.startsWith(prompts[i] as string)).toBe(true);
      expect(logprobs.token_logprobs.length).toBe(list.length + 1);
      expect(logprobs.token_logprobs[0]).toBeNull();
      expect(logprobs.top_logprobs[0]).toBeNull();
      const builder = new ForestBuilder();
      builder.add(list, -1, true);
      const { token, top } = await model.engine.logProbs(builder.build(), { top: 1 });
      for (let at = 1; at < list.length; at++) {
        expect(Math.abs((logprobs.token_logprobs[at] as number) - (token[at] as number))).toBeLessThan(1e-4);
        const best = Math.max(...Object.values(logprobs.top_logprobs[at] ?? {}));
        expect(Math.abs(best - (top?.logProbs[at] as number))).toBeLessThan(1e-4);
        // lm-evaluation-harness compares them for equality.
        expect(best === logprobs.token_logprobs[at]).toBe(top?.ids[at] === list[at]);
      }
      expect(logprobs.tokens.slice(0, -1).join("")).toBe(prompts[i]);
      expect(logprobs.text_offset).toEqual(list.map((_, at) => at).concat(list.length));
      expect(Object.values(logprobs.top_logprobs.at(-1) ?? {})).toContain(logprobs.token_logprobs.at(-1));
    }
  });

  test("of a prompt alone need no new token", async () => {
    const { server } = await byteServer();
    const body = { prompt: "abc", echo: true, max_tokens: 0, logprobs: 2 };
    const { choices } = (await (await post(`${server.url}/v1/completions`, body)).json()) as Completion;
    expect(choices[0]).toMatchObject({ text: "abc", finish_reason: "length" });
    expect(choices[0]?.logprobs.tokens).toEqual(["a", "b", "c"]);
    expect(Object.keys(choices[0]?.logprobs.top_logprobs[2] ?? {}).length).toBeGreaterThanOrEqual(2);
  });

  test("of a stream are those of the whole, in the order of the text", async () => {
    const { server } = await byteServer();
    const request = { prompt: "abc", max_tokens: 40, logprobs: 3, seed: 8, echo: true };
    const whole = (await (await post(`${server.url}/v1/completions`, request)).json()) as Completion;
    const stream = await post(`${server.url}/v1/completions`, { ...request, stream: true });
    const merged = { tokens: [], token_logprobs: [], top_logprobs: [], text_offset: [] } as Record<string, unknown[]>;
    for (const line of (await stream.text()).split("\n\n")) {
      if (!line.startsWith("data: {")) continue;
      const { logprobs } = (JSON.parse(line.slice(6)) as Completion).choices[0] as Completion["choices"][0];
      for (const [name, values] of Object.entries(logprobs)) merged[name]?.push(...values);
    }
    expect(merged).toEqual(whole.choices[0]?.logprobs);
  });

  test("end with the text where a stop string ends it", async () => {
    const { server } = await byteServer();
    const ask = async (more: object) => {
      const body = { prompt: "abc", max_tokens: 60, logprobs: 0, ...more };
      return (await (await post(`${server.url}/v1/completions`, body)).json()) as Completion;
    };
    let seed = 0;
    let free = await ask({ seed });
    while ((free.choices[0]?.text.length ?? 0) < 30) free = await ask({ seed: ++seed });
    const text = free.choices[0]?.text ?? "";
    const stop = text.slice(20, 23);
    const cut = await ask({ seed, stop: [stop, "\u0000\u0000\u0000"] });
    const end = text.indexOf(stop);
    expect(cut.choices[0]?.text).toBe(text.slice(0, end));
    expect(cut.choices[0]?.finish_reason).toBe("stop");
    const kept = free.choices[0]?.logprobs.text_offset.filter((offset) => offset < end).length;
    expect(cut.choices[0]?.logprobs.token_logprobs).toEqual(free.choices[0]?.logprobs.token_logprobs.slice(0, kept));
  });

  test("of a chat come with the bytes of their tokens", async () => {
    const { server } = await byteServer();
    const body = {
      messages: [{ role: "user", content: "Hi" }],
      max_tokens: 20,
      seed: 1,
      logprobs: true,
      top_logprobs: 2,
    };
    const answer = (await (await post(`${server.url}/v1/chat/completions`, body)).json()) as {
      choices: {
        logprobs: { content: { token: string; bytes: number[] | null; logprob: number; top_logprobs: unknown[] }[] };
      }[];
    };
    const content = answer.choices[0]?.logprobs.content ?? [];
    expect(content.length).toBeGreaterThan(5);
    for (const { token, bytes, logprob, top_logprobs } of content) {
      expect(logprob).toBeLessThanOrEqual(0);
      expect(top_logprobs.length).toBe(2);
      if (bytes === null) expect(token).toContain("\uFFFD");
      else expect(new TextDecoder().decode(Uint8Array.from(bytes))).toBe(token);
    }
  });
});
