import { type RunningServer, startServer } from "@tempora/server";
import { type Command, InvalidArgumentError } from "commander";
import { type AdapterFlags, addAdapterOption } from "../adapter.ts";
import type { Context } from "../context.ts";
import { loadEngine, modelHelp, openModel } from "../model.ts";
import {
  addCacheOptions,
  addEngineOptions,
  type CacheFlags,
  type EngineFlags,
  newCommand,
  realNumber,
  whenCalled,
  wholeNumber,
} from "../options.ts";
import { servedModel } from "../served-model.ts";

interface ServeFlags extends AdapterFlags, EngineFlags, CacheFlags {
  host: string;
  port: number;
  apiKey?: string;
  name?: string;
  maxConcurrency: number;
  maxQueue: number;
  maxBody: number;
  requestTimeout: number;
  shutdownTimeout: number;
}

export function serveCommand(context: Context): Command {
  const command = newCommand("serve", "Answer requests by OpenAI's interface, over HTTP", [
    "serve runs/world-temporal/models/M1",
    "serve org/name --host 0.0.0.0 --port 8080 --name my-model",
  ])
    .argument("<model>", modelHelp)
    .option("--host <address>", "where to listen; 0.0.0.0 for every machine that can reach this one", "127.0.0.1")
    .option("--port <number>", "0 takes any that is free", wholeNumber(0, 65_535), 8000)
    .option("--api-key <key>", "what every request must carry but /health's (default: TEMPORA_API_KEY)", apiKey)
    .option("--name <name>", "what requests call the model (default: as it is given here)")
    .option("--max-concurrency <count>", "requests that generate at the same time", wholeNumber(1), 64)
    .option("--max-queue <count>", "requests that wait for those; one more gets status 429", wholeNumber(0), 256)
    .option("--max-body <bytes>", "largest body of a request", wholeNumber(1), 8 * 2 ** 20)
    .option("--request-timeout <seconds>", "for a whole request", realNumber(0, 86_400, { above: true }), 600)
    .option("--shutdown-timeout <seconds>", "for what runs when the server is stopped", realNumber(0, 86_400), 10);
  return whenCalled(
    addCacheOptions(addAdapterOption(addEngineOptions(command)), { maxRows: 64, maxCacheTokens: 32_768 }),
    context,
    serve,
  );
}

function apiKey(text: string): string {
  if (/^[\x21-\x7e]+$/.test(text)) return text;
  throw new InvalidArgumentError("Give a key of visible ASCII characters, without spaces.");
}

async function serve(flags: ServeFlags, context: Context, args: readonly string[]): Promise<void> {
  const model = await openModel(args[0] as string, context);
  const key = flags.apiKey ?? keyOfEnvironment();
  await model.tokenizer();
  using engine = await loadEngine(model, flags, context);
  const served = await servedModel(model, engine, flags.name ?? model.name);
  const server = await startServer({
    models: [served],
    host: flags.host,
    port: flags.port,
    apiKey: key,
    batch: { maxRows: flags.maxRows, maxCacheTokens: flags.maxCacheTokens },
    limits: {
      concurrency: flags.maxConcurrency,
      queue: flags.maxQueue,
      bodyBytes: flags.maxBody,
      requestTimeout: flags.requestTimeout * 1000,
      shutdownTimeout: flags.shutdownTimeout * 1000,
    },
    onFailure: (error) => context.progress.note(`a request failed: ${messageOf(error)}`),
  });
  const { url } = server;
  const open = key === null && !["127.0.0.1", "::1", "localhost"].includes(flags.host);
  if (open) context.progress.note("warning: whoever reaches this machine may use the model: give an --api-key.");
  const machine = { dtype: engine.dtype, device: engine.device };
  context.result({ url, model: served.name, ...machine }, `${served.name} is served at ${url}/v1; Ctrl-C stops it`);
  await stopped(server, context.signal);
}

function keyOfEnvironment(): string | null {
  const key = process.env.TEMPORA_API_KEY ?? "";
  return key === "" ? null : apiKey(key);
}

/** Runs until Ctrl-C or SIGTERM, and until the requests of that moment have ended. */
async function stopped(server: RunningServer, signal: AbortSignal): Promise<void> {
  if (!signal.aborted) {
    await new Promise<void>((resolve) => {
      signal.addEventListener("abort", () => resolve(), { once: true });
    });
  }
  await server.close();
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
