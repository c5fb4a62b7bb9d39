import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { Engine } from "@tempora/engine";
import { byteEndId, byteModelConfig, byteTokenizerFiles, scratch } from "@tempora/testing";
import { Tokenizer } from "@tempora/text";
import { onTestFinished } from "vitest";
import type { ServedModel } from "./served-model.ts";
import { type RunningServer, type ServerOptions, startServer } from "./server.ts";

/** A random model of bytes, in memory. Disposed of with the test. */
export async function byteModel(name = "bytes"): Promise<ServedModel & { engine: Engine }> {
  const folder = await scratch();
  const files = byteTokenizerFiles();
  await writeFile(join(folder, "tokenizer.json"), JSON.stringify(files.tokenizer));
  await writeFile(join(folder, "tokenizer_config.json"), JSON.stringify(files.config));
  const engine = await Engine.random(byteModelConfig, { device: "cpu", seed: 3, std: 0.3 });
  onTestFinished(() => engine.dispose());
  return {
    name,
    engine,
    adapter: null,
    tokenizer: await Tokenizer.load(folder),
    endTokens: [byteEndId],
    tokenizerConfig: files.config,
  };
}

/** A server of one random model on a free port; stopped with the test. */
export async function byteServer(
  options: Partial<ServerOptions> = {},
): Promise<{ server: RunningServer; model: ServedModel & { engine: Engine } }> {
  const model = await byteModel();
  const server = await startServer({
    models: [model],
    port: 0,
    onFailure: (error) => console.error(error),
    ...options,
  });
  onTestFinished(() => server.close());
  return { server, model };
}

/** Sends JSON, or what else is given as it is. */
export function post(url: string, body: unknown, headers: Record<string, string> = {}): Promise<Response> {
  return fetch(url, {
    method: "POST",
    headers: { "content-type": "application/json", ...headers },
    body: typeof body === "string" ? body : JSON.stringify(body),
  });
}
