/**
 * Load on `tempora serve`: 64 clients of autocannon with prompts and answers of mixed lengths, and beside them clients that
 * read slowly, that leave, and that send nonsense. Outputs must be what the idle server gives for the same seeds, memory
 * must stay flat, and nothing may fall over.
 *   bun bench/clients/load.ts MODEL [SECONDS]
 */
import { readFileSync } from "node:fs";
import { connect } from "node:net";
import { TemporaError } from "@tempora/errors";
import autocannon from "autocannon";
import { startServer } from "./served.ts";

const clients = 64;
const json = { "content-type": "application/json" };

interface Ask {
  prompt: string;
  max_tokens: number;
  n: number;
  seed: number;
}

/** Requests of mixed lengths that the load is made of, and that are compared. */
const asks = Array.from({ length: 24 }, (_, i): Ask => {
  const words = Array.from(
    { length: 1 + ((7 * i) % 30) },
    (_, word) => ["one", "two", "three", "four"][(i + word) % 4],
  );
  return { prompt: words.join(" "), max_tokens: [1, 4, 16, 64][i % 4] as number, n: 1 + (i % 3), seed: i };
});

async function answer(url: string, ask: Ask): Promise<string> {
  const response = await fetch(`${url}/v1/completions`, { method: "POST", headers: json, body: JSON.stringify(ask) });
  if (response.status !== 200) return `status ${response.status}`;
  const { choices } = (await response.json()) as { choices: { text: string; finish_reason: string }[] };
  return JSON.stringify(choices.map(({ text, finish_reason }) => [text, finish_reason]));
}

/** Counts of what the clients beside autocannon did. */
const counts = { compared: 0, different: 0, busy: 0, left: 0, slow: 0, broken: 0, unexpected: 0 };

/** Asks over and over, and compares with what the idle server said. */
async function compare(url: string, expected: readonly string[], running: () => boolean): Promise<void> {
  for (let i = 0; running(); i = (i + 1) % asks.length) {
    const got = await answer(url, asks[i] as Ask);
    if (got === "status 429") {
      counts.busy++;
      await Bun.sleep(100);
      continue;
    }
    counts.compared++;
    if (got !== expected[i]) counts.different++;
  }
}

/** Begins streams and leaves in their midst. */
async function leave(url: string, running: () => boolean): Promise<void> {
  while (running()) {
    const controller = new AbortController();
    const body = JSON.stringify({ prompt: "one two", max_tokens: 200, n: 4, stream: true });
    try {
      const signal = controller.signal;
      const response = await fetch(`${url}/v1/completions`, { method: "POST", headers: json, body, signal });
      await response.body?.getReader().read();
      controller.abort();
      counts.left++;
    } catch {
      counts.unexpected++;
    }
    await Bun.sleep(20);
  }
}

/** Sends bytes over a connection of its own, and takes a few bytes of the answer at a time. */
function exchange(url: string, bytes: string, pace: number): Promise<string> {
  const { hostname, port } = new URL(url);
  return new Promise((resolve) => {
    const socket = connect(Number(port), hostname, () => socket.write(bytes));
    let text = "";
    socket.on("data", (data: Buffer) => {
      text += data.toString("latin1");
      if (pace === 0) return;
      socket.pause();
      setTimeout(() => socket.resume(), pace);
    });
    socket.on("error", () => resolve(text));
    socket.on("close", () => resolve(text));
    socket.setTimeout(20_000, () => socket.destroy());
  });
}

async function readSlowly(url: string, running: () => boolean): Promise<void> {
  const body = JSON.stringify({ prompt: "one two three", max_tokens: 200, n: 8, stream: true, logprobs: 0 });
  const head = `POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\nconnection: close\r\n`;
  while (running()) {
    const text = await exchange(url, `${head}content-length: ${body.length}\r\n\r\n${body}`, 50);
    if (/^HTTP\/1\.1 (200|429)/.test(text)) counts.slow++;
    else counts.unexpected++;
  }
}

const nonsense = [
  "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
  "GET / HTTP/9.9\r\n\r\n",
  "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: -1\r\n\r\n",
  `GET /health HTTP/1.1\r\nhost: localhost\r\nx: ${"a".repeat(100_000)}\r\n\r\n`,
  'POST /v1/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{"prompt"',
  'POST /v1/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: 12\r\n\r\n{"prompt":7}',
  "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: 99999999\r\n\r\n{",
];

async function sendNonsense(url: string, running: () => boolean): Promise<void> {
  for (let i = 0; running(); i++) {
    const text = await exchange(url, nonsense[i % nonsense.length] as string, 0);
    // A connection that is closed without a word is an answer to what is no HTTP.
    if (text === "" || /^HTTP\/1\.1 4\d\d/.test(text)) counts.broken++;
    else counts.unexpected++;
    await Bun.sleep(20);
  }
}

/** Resident memory of a process, in MiB. */
function residentOf(pid: number): number {
  const match = /VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, "utf8"));
  return Math.round(Number(match?.[1]) / 1024);
}

async function main(model: string, seconds: number): Promise<void> {
  const server = await startServer([model, "--name", "served", "--max-queue", "128"]);
  const { url } = server;
  const expected: string[] = [];
  for (const ask of asks) expected.push(await answer(url, ask));
  let going = true;
  const running = () => going;
  const memory: number[] = [];
  const clock = setInterval(() => memory.push(residentOf(server.child.pid as number)), 1000);
  const others = [
    ...Array.from({ length: 4 }, () => compare(url, expected, running)),
    ...Array.from({ length: 4 }, () => leave(url, running)),
    ...Array.from({ length: 8 }, () => readSlowly(url, running)),
    ...Array.from({ length: 2 }, () => sendNonsense(url, running)),
  ];
  const requests = asks.map((ask) => ({
    method: "POST" as const,
    path: "/v1/completions",
    headers: json,
    body: JSON.stringify({ ...ask, stream: ask.seed % 2 === 0 }),
  }));
  const result = await autocannon({ url, connections: clients, duration: seconds, requests });
  going = false;
  clearInterval(clock);
  await Promise.all(others);
  const metrics = await (await fetch(`${url}/metrics`)).text();
  const metric = (name: string) => Number(new RegExp(`^${name} (.*)$`, "m").exec(metrics)?.[1]);
  const rows = metric("tempora_rows_running");
  const tokens = metric("tempora_generated_tokens_total");
  const code = await server.stop();
  const third = memory.slice(Math.floor(memory.length / 3), Math.floor((2 * memory.length) / 3));
  const last = memory.slice(Math.floor((2 * memory.length) / 3));
  const growth = Math.max(...last) - Math.max(...third);
  const { latency, errors, timeouts, non2xx } = result;
  console.log(
    `${clients} clients, ${seconds} s: ${result["2xx"]} answers, ${non2xx} refused, ${errors} errors, ${timeouts} timeouts`,
  );
  console.log(`latency ms: median ${latency.p50}, 99 % ${latency.p99}; ${Math.round(tokens / seconds)} tokens/s`);
  console.log(`others: ${JSON.stringify(counts)}`);
  console.log(`memory MiB, each second: ${memory.join(" ")}; the last third's peak is ${growth} above the second's`);
  console.log(`rows left ${rows}; exit code ${code}`);
  const sound =
    counts.different === 0 && counts.unexpected === 0 && counts.compared > 0 && errors === 0 && timeouts === 0;
  if (sound && rows === 0 && code === 0 && growth <= 0.05 * Math.max(...third)) return;
  throw new TemporaError("The server did not stand the load", { remedy: "See the figures above." });
}

const [model, seconds = "30"] = process.argv.slice(2);
if (model === undefined)
  throw new TemporaError("Which model?", { remedy: "bun bench/clients/load.ts MODEL [SECONDS]" });
await main(model, Number(seconds));
