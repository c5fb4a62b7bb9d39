import { connect } from "node:net";
import type { Engine, ModelSource, TensorSource } from "@tempora/engine";
import { describe, expect, test } from "vitest";
import { byteServer, post } from "./testing.ts";

interface ErrorBody {
  error: { message: string; type: string; param: string | null; code: string | null };
}

async function errorOf(response: Response): Promise<ErrorBody["error"]> {
  return ((await response.json()) as ErrorBody).error;
}

const long = { prompt: "Once", max_tokens: 400, seed: 1 };

describe("a request that is at fault is told which field", () => {
  const cases: [string, string, unknown, string | null, RegExp][] = [
    ["no JSON", "/v1/completions", "{", null, /not valid JSON/],
    ["deep nesting", "/v1/completions", "[".repeat(200_000), null, /JSON/],
    ["a list", "/v1/completions", "[1]", null, /must be a JSON object/],
    ["no prompt", "/v1/completions", {}, "prompt", /prompt: must be a text/],
    ["a prompt of two kinds", "/v1/completions", { prompt: ["a", 1] }, "prompt", /list of token ids/],
    ["an empty prompt", "/v1/completions", { prompt: "" }, "prompt", /no tokens/],
    ["an id outside", "/v1/completions", { prompt: [1, 260] }, "prompt", /260 lies outside the vocabulary/],
    ["an id that is none", "/v1/completions", { prompt: [1, -1] }, "prompt[1]", /whole number from 0/],
    ["half of a pair", "/v1/completions", '{"prompt": "a\\ud83d"}', "prompt", /half of a surrogate pair/],
    ["a long prompt", "/v1/completions", { prompt: "x".repeat(512) }, "prompt", /takes 512 tokens with the answer/],
    ["n 0", "/v1/completions", { prompt: "a", n: 0 }, "n", /from 1/],
    ["n as text", "/v1/completions", { prompt: "a", n: "2" }, "n", /whole number/],
    ["too many", "/v1/completions", { prompt: ["a", "b"], n: 100 }, "n", /more than 128/],
    ["temperature", "/v1/completions", { prompt: "a", temperature: -1 }, "temperature", /from 0/],
    ["top_p", "/v1/completions", { prompt: "a", top_p: 0 }, "top_p", /above 0/],
    ["no tokens", "/v1/completions", { prompt: "a", max_tokens: 0 }, "max_tokens", /at least 1/],
    ["a penalty", "/v1/completions", { prompt: "a", frequency_penalty: 1 }, "frequency_penalty", /must be 0/],
    ["best_of", "/v1/completions", { prompt: "a", n: 1, best_of: 3 }, "best_of", /equal to n/],
    ["an empty stop", "/v1/completions", { prompt: "a", stop: ["a", ""] }, "stop[1]", /must not be empty/],
    ["an unknown field", "/v1/completions", { prompt: "a", temprature: 1 }, "temprature", /does not know/],
    ["a suffix", "/v1/completions", { prompt: "a", suffix: "b" }, "suffix", /not supported/],
    ["no messages", "/v1/chat/completions", { messages: [] }, "messages", /at least one/],
    ["no role", "/v1/chat/completions", { messages: [{ content: "a" }] }, "messages[0].role", /must be system/],
    [
      "an image",
      "/v1/chat/completions",
      { messages: [{ role: "user", content: [{ type: "image_url", text: "" }] }] },
      "messages[0].content",
      /text/,
    ],
    [
      "a tool",
      "/v1/chat/completions",
      { messages: [{ role: "user", content: "a" }], tools: [{}] },
      "tools[0]",
      /not supported/,
    ],
    [
      "top_logprobs alone",
      "/v1/chat/completions",
      { messages: [{ role: "user", content: "a" }], top_logprobs: 2 },
      "top_logprobs",
      /logprobs/,
    ],
    ["nothing to tokenize", "/tokenize", {}, "prompt", /either/],
    ["text to detokenize", "/detokenize", { tokens: ["a"] }, "tokens[0]", /whole number/],
  ];

  test("all of them", async () => {
    const { server } = await byteServer();
    for (const [name, path, body, param, message] of cases) {
      const response = await post(server.url + path, body);
      const error = await errorOf(response);
      expect([name, response.status, error.param, error.type]).toEqual([name, 400, param, "invalid_request_error"]);
      expect(error.message).toMatch(message);
    }
    expect(server.load.rows).toBe(0);
  });

  test("an unknown model, path and type", async () => {
    const { server } = await byteServer();
    const model = await post(`${server.url}/v1/completions`, { prompt: "a", model: "gpt-4" });
    expect([model.status, (await errorOf(model)).param]).toEqual([404, "model"]);
    const path = await fetch(`${server.url}/v1/nothing`);
    expect([path.status, (await errorOf(path)).code]).toEqual([404, "not_found"]);
    const type = await post(`${server.url}/v1/completions`, { prompt: "a" }, { "content-type": "text/plain" });
    expect([type.status, (await errorOf(type)).code]).toEqual([415, "unsupported_type"]);
  });

  test("a body or a header that is too large", async () => {
    const { server } = await byteServer({ limits: { bodyBytes: 1000 } });
    const whole = await post(`${server.url}/v1/completions`, { prompt: "a".repeat(1000) });
    expect([whole.status, (await errorOf(whole)).code]).toEqual([413, "body_too_large"]);
    const bytes = new TextEncoder().encode("x".repeat(600));
    const pieces = new ReadableStream({
      pull(controller) {
        controller.enqueue(bytes);
      },
    });
    const chunked = await fetch(`${server.url}/v1/completions`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: pieces,
      duplex: "half",
    } as RequestInit).then(
      ({ status }) => status,
      () => "cut off",
    );
    expect([413, "cut off"]).toContain(chunked);
    const header = await fetch(`${server.url}/health`, { headers: { "x-long": "a".repeat(20_000) } });
    expect(header.status).toBe(431);
    expect((await fetch(`${server.url}/health`)).status).toBe(200);
  });
});

test("nothing but /health answers without the key", async () => {
  const { server } = await byteServer({ apiKey: "secret" });
  const paths = ["/v1/models", "/v1/models/bytes", "/metrics", "/tokenizer_info", "/nowhere", "/"];
  const posts = ["/v1/completions", "/v1/chat/completions", "/tokenize", "/detokenize"];
  for (const authorization of [
    "",
    "Bearer",
    "Bearer wrong",
    "Bearer secret2",
    "Bearer secre",
    "Basic secret",
    "secret",
  ]) {
    for (const path of paths) {
      const response = await fetch(server.url + path, { headers: { authorization } });
      expect([path, authorization, response.status]).toEqual([path, authorization, 401]);
      expect((await errorOf(response)).code).toBe("invalid_api_key");
    }
    for (const path of posts) {
      const response = await post(server.url + path, "{", { authorization });
      expect([path, response.status, response.headers.get("www-authenticate")]).toEqual([path, 401, "Bearer"]);
    }
  }
  expect((await fetch(`${server.url}/health`)).status).toBe(200);
  expect((await fetch(`${server.url}/v1/models`, { headers: { authorization: "Bearer secret" } })).status).toBe(200);
});

test("a name that is not this machine's own is answered only with a key", async () => {
  const open = await byteServer();
  const keyed = await byteServer({ apiKey: "secret" });
  const ask = async ({ url }: { url: string }, host: string) => {
    const headers = { host, authorization: "Bearer secret" };
    return (await fetch(`${url}/v1/models`, { headers })).status;
  };
  for (const host of [
    "evil.example",
    "evil.example:80",
    "127.0.0.1.evil.example",
    "localhost.evil.example",
    "abc.de",
  ]) {
    expect([host, await ask(open.server, host), await ask(keyed.server, host)]).toEqual([host, 403, 200]);
  }
  for (const host of ["localhost", "LOCALHOST:8000", "127.0.0.1:80", "[::1]:8000", "app.localhost"]) {
    expect([host, await ask(open.server, host)]).toEqual([host, 200]);
  }
});

test("a cache that memory does not hold is told at the start", async () => {
  await expect(byteServer({ batch: { maxRows: 2 ** 30, maxCacheTokens: 2 ** 31 - 1 } })).rejects.toThrow(
    /maxCacheTokens/,
  );
});

/** Waits until it is so; the suite's limit of time ends what never is. */
async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 5));
}

describe("clients that leave", () => {
  test("in a stream: their completions end, others go on", async () => {
    const { server } = await byteServer();
    const controller = new AbortController();
    const response = await fetch(`${server.url}/v1/completions`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ ...long, n: 40, stream: true }),
      signal: controller.signal,
    });
    await response.body?.getReader().read();
    expect(server.load.rows).toBeGreaterThan(30);
    const other = post(`${server.url}/v1/completions`, { ...long, max_tokens: 100 });
    controller.abort();
    await until(() => server.load.rows <= 1);
    expect((await other).status).toBe(200);
    expect(server.load.rows).toBe(0);
  });

  test("while they wait for a whole answer, or for a place", async () => {
    const failures: unknown[] = [];
    const onFailure = (error: unknown) => failures.push(error);
    const { server } = await byteServer({ limits: { concurrency: 1 }, onFailure });
    const controllers = [new AbortController(), new AbortController()];
    const requests = controllers.map(({ signal }) =>
      fetch(`${server.url}/v1/completions`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ ...long, n: 40 }),
        signal,
      }).catch((error: Error) => error.name),
    );
    await until(() => server.load.rows > 0);
    for (const controller of controllers) controller.abort();
    expect(await Promise.all(requests)).toEqual(["AbortError", "AbortError"]);
    await until(() => server.load.rows === 0);
    expect((await post(`${server.url}/v1/completions`, { prompt: "a" })).status).toBe(200);
    expect(failures).toEqual([]);
  });
});

test("a failing engine is told to whoever asked, and to the owner, not why; then it goes on", async () => {
  const failures: unknown[] = [];
  const { server, model } = await byteServer({ onFailure: (error) => failures.push(error) });
  const request = { ...long, n: 40 };
  const whole = post(`${server.url}/v1/completions`, request);
  const stream = post(`${server.url}/v1/completions`, { ...request, stream: true });
  await until(() => server.load.rows === 80);
  // Weights that change under a running batch.
  await model.engine.setParameters(await sameWeights(model.engine));
  expect([(await whole).status, await errorOf(await whole)]).toEqual([
    500,
    { message: "The server failed at this request.", type: "server_error", param: null, code: "internal_error" },
  ]);
  expect(await (await stream).text()).toMatch(/"code":"internal_error"\}\}\n\n$/);
  expect(failures.map(String)).toEqual(Array(2).fill(expect.stringContaining("The weights changed")));
  expect((await post(`${server.url}/v1/completions`, { prompt: "a" })).status).toBe(200);
});

/** An engine's own weights, as a model to load. */
async function sameWeights(engine: Engine): Promise<ModelSource> {
  const tensors: TensorSource[] = [];
  for await (const tensor of engine.tensors()) {
    tensors.push({ ...tensor, file: "memory", read: () => Promise.resolve(tensor.bytes) });
  }
  return { config: engine.config, name: "memory", dtype: engine.dtype, tensors: () => tensors };
}

describe("limits", () => {
  test("requests beyond the queue are turned away with a time to come back", async () => {
    const { server } = await byteServer({ limits: { concurrency: 2, queue: 3 } });
    const responses = await Promise.all(
      Array.from({ length: 12 }, () => post(`${server.url}/v1/completions`, { ...long, max_tokens: 60 })),
    );
    const statuses = responses.map(({ status }) => status).sort();
    expect(statuses).toEqual([...Array(5).fill(200), ...Array(7).fill(429)]);
    const busy = responses.find(({ status }) => status === 429) as Response;
    expect(busy.headers.get("retry-after")).toBe("1");
    expect(await errorOf(busy)).toMatchObject({ type: "rate_limit_error", code: "server_busy" });
  });

  test("a request that takes too long is told so, whole or in a stream", async () => {
    const { server } = await byteServer({ limits: { requestTimeout: 30 } });
    const slow = { ...long, n: 64 };
    const whole = await post(`${server.url}/v1/completions`, slow);
    expect([whole.status, (await errorOf(whole)).code]).toEqual([503, "timeout"]);
    const stream = await post(`${server.url}/v1/completions`, { ...slow, stream: true });
    const events = (await stream.text()).trim().split("\n\n");
    expect(events.at(-1)).toMatch(/^data: \{"error":\{.*"code":"timeout"/);
    await until(() => server.load.rows === 0);
  });

  test("a request whose body never comes is given up", async () => {
    const { server } = await byteServer({ limits: { receiveTimeout: 100 } });
    const { port, hostname } = new URL(server.url);
    const answer = await new Promise<string>((resolve) => {
      const socket = connect(Number(port), hostname);
      let text = "";
      socket.on("data", (data) => {
        text += data.toString();
        if (text.includes("\r\n\r\n")) socket.end();
      });
      socket.on("close", () => resolve(text));
      socket.write(
        "POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{",
      );
    });
    expect(answer).toMatch(/^HTTP\/1\.1 4\d\d/);
  });

  test("a slow reader gets all, keeps no place, and holds nobody up", async () => {
    const { server } = await byteServer({ limits: { concurrency: 1, queue: 5 } });
    const request = { ...long, n: 40, logprobs: 0 };
    const slow = await post(`${server.url}/v1/completions`, { ...request, stream: true });
    await until(() => server.load.rows === 0);
    expect((await post(`${server.url}/v1/completions`, { prompt: "a" })).status).toBe(200);
    const texts = Array<string>(40).fill("");
    for (const line of (await slow.text()).split("\n\n")) {
      if (!line.startsWith("data: {")) continue;
      const { choices } = JSON.parse(line.slice(6)) as { choices: { index: number; text: string }[] };
      for (const { index, text } of choices) texts[index] += text;
    }
    const whole = (await (await post(`${server.url}/v1/completions`, request)).json()) as {
      choices: { text: string }[];
    };
    expect(texts).toEqual(whole.choices.map(({ text }) => text));
  });
});

describe("stopping", () => {
  test("lets what runs end, and turns away what waits and what comes", async () => {
    const { server } = await byteServer({ limits: { concurrency: 1 } });
    const running = post(`${server.url}/v1/completions`, { ...long, n: 40 });
    const waiting = post(`${server.url}/v1/completions`, { ...long, n: 40 });
    await until(() => server.load.running === 1 && server.load.waiting === 1);
    const closed = server.close();
    const [done, refused] = (await Promise.all([running, waiting])).sort((a, b) => a.status - b.status);
    expect([done?.status, refused?.status, refused?.headers.get("retry-after")]).toEqual([200, 503, "5"]);
    await closed;
    await expect(fetch(`${server.url}/health`)).rejects.toThrow();
  });

  test("cuts off what runs beyond the deadline", async () => {
    const { server } = await byteServer({ limits: { shutdownTimeout: 20 } });
    const running = post(`${server.url}/v1/completions`, { ...long, n: 100 });
    await until(() => server.load.rows > 0);
    await server.close();
    expect((await running).status).toBe(503);
    expect(server.load.rows).toBe(0);
  });
});

test("counts for Prometheus", async () => {
  const { server } = await byteServer();
  await post(`${server.url}/v1/completions`, { prompt: "abc", max_tokens: 5, seed: 1 });
  await post(`${server.url}/v1/completions`, {});
  await fetch(`${server.url}/nowhere`);
  await new Promise((resolve) => setTimeout(resolve, 20));
  const response = await fetch(`${server.url}/metrics`);
  expect(response.headers.get("content-type")).toContain("text/plain");
  const text = await response.text();
  expect(text).toContain('tempora_requests_total{path="/v1/completions",status="200"} 1');
  expect(text).toContain('tempora_requests_total{path="/v1/completions",status="400"} 1');
  expect(text).toContain('tempora_requests_total{path="other",status="404"} 1');
  expect(text).toContain("tempora_prompt_tokens_total 3");
  expect(text).toContain("tempora_generated_tokens_total 5");
  expect(text).toContain("tempora_requests_running 0");
  expect(text).toMatch(/tempora_engine_memory_bytes\{use="weights"\} [1-9]/);
});

test("tokenizes and detokenizes as vLLM does", async () => {
  const { server, model } = await byteServer();
  const send = async (path: string, body: unknown) => (await post(server.url + path, body)).json();
  const ids = model.tokenizer.encode("Hé<|im_end|>");
  expect(await send("/tokenize", { prompt: "Hé<|im_end|>", add_special_tokens: false })).toEqual({
    count: 4,
    max_model_len: 512,
    tokens: ids,
    token_strs: null,
  });
  expect(await send("/tokenize", { prompt: "Hi<|im_end|>", return_token_strs: true })).toMatchObject({
    token_strs: ["H", "i", "<|im_end|>"],
  });
  expect(await send("/detokenize", { tokens: ids })).toEqual({ prompt: "Hé<|im_end|>" });
  const talk = { messages: [{ role: "user", content: "Hi" }], add_generation_prompt: false };
  expect(await send("/tokenize", talk)).toMatchObject({
    tokens: model.tokenizer.encode("<|im_start|>user\nHi<|im_end|>\n"),
  });
  const info = await (await fetch(`${server.url}/tokenizer_info`)).json();
  expect(info).toMatchObject({ eos_token: "<|im_end|>", chat_template: expect.stringContaining("im_start") });
});
