/**
 * Tokens a second of `tempora serve` (bf16) and of llama.cpp's server under the same clients, one server after the other, llama.cpp's
 * on the same GGUF file and on those that it may prefer:
 *   bun bench/clients/throughput.ts MODEL.gguf [OTHER.gguf...] [NAME=URL...]
 * and on further servers of OpenAI's interface that run already and call their model "served", such as vLLM's.
 * Installs xllamacpp (llama.cpp's server as a Python package, prebuilt) from PyPI into bench/clients/.llama-server once.
 */
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { availableParallelism } from "node:os";
import { basename, join } from "node:path";
import { TemporaError } from "@tempora/errors";
import { run } from "../process.ts";
import { startServer } from "./served.ts";

const venv = process.env.TEMPORA_LLAMA_SERVER ?? join(import.meta.dirname, ".llama-server");
const python = join(venv, "bin", "python");
const version = "2026.10.11549";

const clientCounts = [1, 8, 32];
const seconds = 15;
const maxTokens = 64;
/** Of a slot of llama.cpp's: what the longest prompt and its answer need. */
const slotTokens = 512;

interface Peer {
  name: string;
  url: string;
  /** Fields of its requests: both sample from the whole distribution. */
  sampling: object;
  stop(): Promise<unknown>;
}

interface Figures {
  answers: number;
  promptTokens: number;
  tokens: number;
  seconds: number;
  /** Milliseconds to a whole answer, median. */
  median: number;
}

async function install(): Promise<void> {
  if (existsSync(python)) return;
  const remedy = "Install Python 3 with venv, and check the network.";
  console.error(`installing xllamacpp into ${venv}`);
  await run("python3", ["-m", "venv", venv], { remedy });
  await run(join(venv, "bin", "pip"), ["install", "--quiet", `xllamacpp==${version}`], { remedy });
}

async function llamaServer(model: string, slots: number): Promise<Peer> {
  const numbers = [slots, slotTokens, availableParallelism()].map(String);
  const child = spawn(python, [join(import.meta.dirname, "llama_server.py"), model, ...numbers], {
    stdio: ["pipe", "pipe", "ignore"],
  });
  const ended = new Promise((resolve) => child.once("close", resolve));
  const url = await new Promise<string>((resolve, reject) => {
    let printed = "";
    child.stdout.on("data", (part: Buffer) => {
      printed += part.toString();
      const found = /"url": "([^"]+)"/.exec(printed)?.[1];
      if (found !== undefined) resolve(found);
    });
    void ended.then(() => reject(new TemporaError("llama.cpp's server did not start", { remedy: `Remove ${venv}.` })));
  });
  const stop = () => {
    child.stdin.end();
    return ended;
  };
  return { name: `llama.cpp, ${basename(model)}`, url, sampling: { top_k: 0, min_p: 0 }, stop };
}

async function tempora(model: string, rows: number): Promise<Peer> {
  const limits = [
    "--max-rows",
    `${rows}`,
    "--max-concurrency",
    `${rows}`,
    "--max-cache-tokens",
    `${rows * slotTokens}`,
  ];
  const { url, stop } = await startServer([model, "--name", "served", "--dtype", "bf16", ...limits]);
  return { name: `tempora, ${basename(model)}`, url, sampling: {}, stop };
}

/** Prompts of 16 to 160 words that begin differently: none finds its beginning in a cache. */
function promptOf(k: number): string {
  const words = ["river", "seven", "green", "under", "paper", "music", "engine", "window", "corn", "quick"];
  const length = 16 + ((37 * k) % 145);
  const text = Array.from({ length }, (_, i) => words[(k * 7 + i * (1 + (k % 9))) % words.length]).join(" ");
  return `${k} ${text}. Write a story about these words.`;
}

/** Clients that ask one prompt after the other for so many seconds. */
async function load({ url, sampling }: Peer, clients: number, seconds: number): Promise<Figures> {
  const latencies: number[] = [];
  let [next, promptTokens, tokens] = [0, 0, 0];
  const began = performance.now();
  const client = async () => {
    while (performance.now() - began < seconds * 1000) {
      const [k, asked] = [next++, performance.now()];
      const body = {
        model: "served",
        prompt: promptOf(k),
        max_tokens: maxTokens,
        temperature: 1,
        top_p: 1,
        seed: k,
        ...sampling,
      };
      const response = await fetch(`${url}/v1/completions`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify(body),
      });
      const text = await response.text();
      if (!response.ok)
        throw new TemporaError(`${url} answered ${response.status}: ${text.slice(0, 300)}`, {
          remedy: "Look at what the server says.",
        });
      const { usage } = JSON.parse(text) as { usage: { prompt_tokens: number; completion_tokens: number } };
      latencies.push(performance.now() - asked);
      promptTokens += usage.prompt_tokens;
      tokens += usage.completion_tokens;
    }
  };
  await Promise.all(Array.from({ length: clients }, client));
  latencies.sort((a, b) => a - b);
  return {
    answers: latencies.length,
    promptTokens,
    tokens,
    seconds: (performance.now() - began) / 1000,
    median: latencies[Math.floor(latencies.length / 2)] ?? Number.NaN,
  };
}

async function main(model: string, others: readonly string[]): Promise<void> {
  await install();
  const most = Math.max(...clientCounts);
  const files = [model, ...others.filter((other) => !other.includes("=http"))];
  const running = others.filter((other) => other.includes("=http"));
  const starts = [
    () => tempora(model, most),
    ...files.map((file) => () => llamaServer(file, most)),
    ...running.map((text) => async (): Promise<Peer> => {
      const at = text.indexOf("=");
      return { name: text.slice(0, at), url: text.slice(at + 1), sampling: {}, stop: async () => {} };
    }),
  ];
  for (const start of starts) {
    const peer = await start();
    await load(peer, 1, 1);
    for (const clients of clientCounts) {
      const { answers, promptTokens, tokens, seconds: took, median } = await load(peer, clients, seconds);
      const rates = `${(tokens / took).toFixed(0)} new tokens/s, ${(promptTokens / took).toFixed(0)} prompt tokens/s`;
      const each = `${(tokens / answers).toFixed(1)} tokens an answer, median ${(median / 1000).toFixed(2)} s`;
      console.log(`${peer.name}, ${clients} clients: ${rates}; ${answers} answers, ${each}`);
    }
    await peer.stop();
  }
}

const [model, ...others] = process.argv.slice(2);
if (model === undefined)
  throw new TemporaError("Which model?", {
    remedy: "bun bench/clients/throughput.ts MODEL.gguf [OTHER.gguf...] [NAME=URL...]",
  });
await main(model, others);
