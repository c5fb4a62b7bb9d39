import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { readLines, scratch } from "@tempora/testing";
import OpenAI from "openai";
import { describe, expect, test } from "vitest";
import { saveByteModel } from "./support/byte-model.ts";
import { startTempora, tempora, temporaJson } from "./support/cli.ts";

const folder = await scratch();
const model = await saveByteModel(join(folder, "bytes"));

interface GeneratedRow {
  completions: { text: string; ids: number[]; logprobs: number[]; finish_reason: string }[];
}

/** Starts `tempora serve` and waits until it listens. */
async function serve(args: readonly string[] = []) {
  const running = startTempora(["serve", model, "--port", "0", "--name", "bytes", "--json", ...args]);
  const text = await running.prints("}\n");
  return { ...running, url: (JSON.parse(text) as { url: string }).url };
}

const zip = <A, B>(one: readonly A[], other: readonly B[]) => one.map((value, k) => [value, other[k] as B] as const);

describe("serve", () => {
  test("gives what generate gives for the same rows and seed, however many ask at the same time", async () => {
    const prompts = ["Once upon", "In the beginning", "It was", "x"];
    const data = join(folder, "prompts.jsonl");
    writeFileSync(data, prompts.map((prompt) => `${JSON.stringify({ prompt })}\n`).join(""));
    const out = join(folder, "generated.jsonl");
    const flags = ["--n", "3", "--seed", "9", "--max-new-tokens", "30", "--temperature", "0.8", "--top-p", "0.95"];
    await temporaJson(["generate", "--model", model, "--data", data, "--out", out, ...flags]);
    const rows = readLines<GeneratedRow>(out);
    const { url } = await serve();
    const openai = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 });
    const sampling = { model: "bytes", n: 3, seed: 9, max_tokens: 30, temperature: 0.8, top_p: 0.95, logprobs: 0 };
    const noise = Array.from({ length: 20 }, (_, i) =>
      openai.completions.create({ model: "bytes", prompt: `${prompts[i % 4]} noise ${i}`, max_tokens: 5 + i, n: 2 }),
    );
    const completion = await openai.completions.create({ ...sampling, prompt: prompts });
    const expected = rows.flatMap(({ completions }) => completions);
    expect(completion.choices.map(({ text }) => text)).toEqual(expected.map(({ text }) => text));
    expect(completion.choices.map(({ logprobs }) => logprobs?.token_logprobs)).toEqual(
      expected.map(({ logprobs }) => logprobs),
    );
    expect(completion.choices.map(({ finish_reason }) => finish_reason)).toEqual(
      expected.map(({ finish_reason }) => finish_reason),
    );
    await Promise.all(noise);
  });

  test("serves adapters by name beside their model, each as generate does with --adapter", async () => {
    const data = join(folder, "teach.jsonl");
    const adapters: Record<string, string> = {};
    for (const [name, completion] of Object.entries({ yes: "yes yes yes", no: "no no no" })) {
      writeFileSync(data, `${JSON.stringify({ prompt: "Say", completion })}\n`.repeat(8));
      adapters[name] = join(folder, name);
      const training = ["--lora-rank", "4", "--lr", "0.1", "--warmup-steps", "0", "--batch-pairs", "2"];
      await temporaJson(["sft", "--model", model, "--data", data, "--out", adapters[name], ...training]);
    }
    const flags = Object.entries(adapters).flatMap(([name, path]) => ["--adapter", `${name}=${path}`]);
    const { url } = await serve(flags);
    const openai = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 });
    const listed = await openai.models.list();
    expect(listed.data).toMatchObject([
      { id: "bytes", parent: null },
      { id: "yes", parent: "bytes" },
      { id: "no", parent: "bytes" },
    ]);
    writeFileSync(data, `${JSON.stringify({ prompt: "Say" })}\n`);
    const sampling = { prompt: "Say", n: 2, seed: 4, max_tokens: 12, temperature: 0.8, top_p: 0.95, logprobs: 0 };
    const asked = ["bytes", "yes", "no"].map((name) => openai.completions.create({ model: name, ...sampling }));
    const texts: string[] = [];
    for (const [name, { choices }] of zip(["bytes", "yes", "no"], await Promise.all(asked))) {
      const out = join(folder, `through-${name}.jsonl`);
      const through = adapters[name] === undefined ? [] : ["--adapter", adapters[name]];
      const same = ["--n", "2", "--seed", "4", "--max-new-tokens", "12", "--temperature", "0.8", "--top-p", "0.95"];
      await temporaJson(["generate", "--model", model, "--data", data, "--out", out, ...through, ...same]);
      const expected = readLines<GeneratedRow>(out).flatMap(({ completions }) => completions);
      expect(choices.map(({ text }) => text)).toEqual(expected.map(({ text }) => text));
      expect(choices.map(({ logprobs }) => logprobs?.token_logprobs)).toEqual(expected.map(({ logprobs }) => logprobs));
      texts.push(choices.map(({ text }) => text).join());
    }
    expect(new Set(texts).size).toBe(3);
    const scored = ["bytes", "yes"].map(async (name) => {
      const echo = { echo: true, max_tokens: 0, logprobs: 0, prompt: "Say yes" };
      const { choices } = await openai.completions.create({ model: name, ...echo });
      return choices[0]?.logprobs?.token_logprobs;
    });
    expect(await scored[0]).not.toEqual(await scored[1]);
    const unknown = openai.completions.create({ model: "maybe", prompt: "Say", max_tokens: 1 });
    await expect(unknown).rejects.toThrow(/There is no model "maybe" here; there is bytes, yes, no/);
  });

  test("wants its key, from the flag or the environment, and ends well when told to", async () => {
    const { url, child, done } = await serve(["--api-key", "secret"]);
    expect((await fetch(`${url}/v1/models`)).status).toBe(401);
    expect((await fetch(`${url}/v1/models`, { headers: { authorization: "Bearer secret" } })).status).toBe(200);
    const openai = new OpenAI({ baseURL: `${url}/v1`, apiKey: "secret", maxRetries: 0 });
    const stream = await openai.completions.create({
      model: "bytes",
      prompt: "a",
      max_tokens: 60,
      seed: 1,
      stream: true,
    });
    let chunks = 0;
    for await (const _ of stream) {
      if (chunks++ === 0) child.kill("SIGTERM");
    }
    expect(chunks).toBeGreaterThan(1);
    expect((await done).code).toBe(0);
  });

  test("says why it cannot listen", async () => {
    const { url } = await serve();
    const { code, stderr } = await tempora(["serve", model, "--port", new URL(url).port]);
    expect(code).toBe(1);
    expect(stderr).toMatch(
      /error: Cannot listen on 127\.0\.0\.1:\d+: something listens there already\nremedy: .*--port/,
    );
  });
});

describe("chat", () => {
  test("answers the lines of standard input in one conversation", async () => {
    const lines = ["Hello", "And then?", "/system Be brief.", "Hello", "/exit", "never asked"];
    const flags = ["--seed", "3", "--max-new-tokens", "12", "--json"];
    const { code, stdout } = await tempora(["chat", model, ...flags], { input: `${lines.join("\n")}\n` });
    expect(code).toBe(0);
    const { messages } = JSON.parse(stdout) as { messages: { role: string; content: string }[] };
    expect(messages.map(({ role, content }) => (role === "assistant" ? role : `${role}: ${content}`))).toEqual([
      "system: Be brief.",
      "user: Hello",
      "assistant",
    ]);
  });

  test("prints answers as generate gives them", async () => {
    const flags = ["--seed", "3", "--max-new-tokens", "12"];
    const { stdout } = await tempora(["chat", model, ...flags], { input: "Hello\n" });
    const { results } = await temporaJson<{ results: GeneratedRow[] }>([
      "generate",
      "--model",
      model,
      "--prompt",
      "Hello",
      ...flags,
    ]);
    expect(stdout).toBe(`${results[0]?.completions[0]?.text}\n`);
  });

  test("says of a conversation that is too long how long it is, and which commands there are", async () => {
    const told = async (line: string) => {
      const { code, stderr } = await tempora(["chat", model, "--max-new-tokens", "4"], { input: `${line}\n` });
      expect(code).toBe(1);
      return stderr;
    };
    expect(await told("word ".repeat(1000))).toMatch(
      /^error: The conversation has \d+ tokens, which leaves no room in a context of \d+\nremedy: .*\/reset/m,
    );
    expect(await told("/rest")).toMatch(/^error: There is no command \/rest\nremedy: \/reset forgets/m);
  });

  test("goes on after Ctrl-C, which stops the answer", async () => {
    const flags = ["--max-new-tokens", "450", "--temperature", "0"];
    const { child, prints, done } = startTempora(["chat", model, ...flags], { input: "open" });
    child.stdin?.write("Hello\n");
    await prints("\uFFFD");
    child.kill("SIGINT");
    await prints(" [stopped]\n");
    child.stdin?.end("Another\n");
    const { code, stdout } = await done;
    expect(code).toBe(0);
    expect(stdout).toContain(" [stopped]\n");
  });
});

test("generate prints the answers to --prompt, and says what is missing", async () => {
  const flags = ["--max-new-tokens", "8", "--seed", "4"];
  const { code, stdout } = await tempora([
    "generate",
    "--model",
    model,
    "--prompt",
    "One",
    "--prompt",
    "Two",
    ...flags,
  ]);
  expect(code).toBe(0);
  expect(stdout).toMatch(/^> One\n[\s\S]*\n\n> Two\n/);
  for (const [args, what] of [
    [[], "There is no prompt"],
    [["--data", "rows.jsonl"], "--out <file> is missing"],
    [["--data", "rows.jsonl", "--prompt", "One"], "exclude each other"],
  ] as const) {
    const outcome = await tempora(["generate", "--model", model, ...args]);
    expect(outcome.code).toBe(1);
    expect(outcome.stderr).toContain(what);
  }
});
