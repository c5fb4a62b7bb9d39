import { existsSync } from "node:fs";
import type { Engine } from "@tempora/engine";
import { TemporaError } from "@tempora/errors";
import { type AdapterFolder, openAdapter } from "@tempora/models";
import { type RunningServer, type ServedModel, startServer } from "@tempora/server";
import { type Command, InvalidArgumentError } from "commander";
import { adapterOf } from "../adapter.ts";
import type { Context } from "../context.ts";
import { loadEngine, modelHelp, type OpenModel, openModel } from "../model.ts";
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
import { servedModel, throughAdapter } from "../served-model.ts";

interface ServeFlags extends EngineFlags, CacheFlags {
  adapter: NamedFolder[];
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
    "serve models/base --adapter polite=adapters/polite --adapter terse=adapters/terse",
    "serve org/name --host 0.0.0.0 --port 8080 --name my-model",
  ])
    .argument("<model>", modelHelp)
    .option("--host <address>", "where to listen; 0.0.0.0 for every machine that can reach this one", "127.0.0.1")
    .option("--port <number>", "0 takes any that is free", wholeNumber(0, 65_535), 8000)
    .option("--api-key <key>", "what every request must carry but /health's (default: TEMPORA_API_KEY)", apiKey)
    .option("--name <name>", "what requests call the model (default: as it is given here)")
    .option(
      "--adapter <[name=]folder>",
      "a LoRA adapter as PEFT saves it: under a name of its own beside the model, or, without one, as the model; may be repeated",
      namedFolders,
      [],
    )
    .option("--max-concurrency <count>", "requests that generate at the same time", wholeNumber(1), 64)
    .option("--max-queue <count>", "requests that wait for those; one more gets status 429", wholeNumber(0), 256)
    .option("--max-body <bytes>", "largest body of a request", wholeNumber(1), 8 * 2 ** 20)
    .option("--request-timeout <seconds>", "for a whole request", realNumber(0, 86_400, { above: true }), 600)
    .option("--shutdown-timeout <seconds>", "for what runs when the server is stopped", realNumber(0, 86_400), 10);
  return whenCalled(
    addCacheOptions(addEngineOptions(command), { maxRows: 64, maxCacheTokens: 32_768 }),
    context,
    serve,
  );
}

interface NamedFolder {
  /** null: the model itself goes through it. */
  name: string | null;
  folder: string;
}

/** A "=" may stand in a path: what is there as it is named has no name. */
function namedFolders(text: string, earlier: readonly NamedFolder[]): NamedFolder[] {
  const at = existsSync(text) ? -1 : text.indexOf("=");
  const one = { name: at < 0 ? null : text.slice(0, at), folder: text.slice(at + 1) };
  if (one.name === "" || one.folder === "") throw new InvalidArgumentError("Give a folder, or NAME=FOLDER.");
  if (earlier.some(({ name }) => name === one.name)) {
    const what = one.name === null ? "Only one adapter can be the model's" : `There are two adapters ${one.name}`;
    throw new InvalidArgumentError(`${what}: give each a name of its own, as NAME=FOLDER.`);
  }
  return [...earlier, one];
}

function apiKey(text: string): string {
  if (/^[\x21-\x7e]+$/.test(text)) return text;
  throw new InvalidArgumentError("Give a key of visible ASCII characters, without spaces.");
}

async function serve(flags: ServeFlags, context: Context, args: readonly string[]): Promise<void> {
  const model = await openModel(args[0] as string, context);
  const key = flags.apiKey ?? keyOfEnvironment();
  await model.tokenizer();
  const name = flags.name ?? model.name;
  const nameless = flags.adapter.find((one) => one.name === null);
  const own = adapterOf(model, nameless === undefined ? {} : { adapter: nameless.folder });
  const named = flags.adapter.filter((one) => one.name !== null);
  const adapters = await openedAdapters(own === null ? named : [{ name: null, folder: own }, ...named], name);
  const { adapter: _, ...plain } = flags;
  using engine = await loadEngine({ ...model, adapter: null }, plain, context);
  const served = await servedModels(model, engine, name, adapters);
  const server = await startServer({
    models: served,
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
  const names = served.map((one) => one.name);
  const what = `${names.join(", ")} ${names.length === 1 ? "is" : "are"} served at ${url}/v1; Ctrl-C stops it`;
  context.result({ url, model: name, ...(names.length > 1 ? { models: names } : {}), ...machine }, what);
  await stopped(server, context.signal);
}

/** By name, the model's own for the one that has none; before any weights are read. */
async function openedAdapters(named: readonly NamedFolder[], model: string): Promise<Map<string, AdapterFolder>> {
  const opened = new Map<string, AdapterFolder>();
  for (const { name, folder } of named) {
    if (name === model) {
      throw new TemporaError(`An adapter is called ${name}, as the model is`, {
        where: { field: "--adapter" },
        remedy: "Give it another name, or the model one by --name.",
      });
    }
    opened.set(name ?? model, await openAdapter(folder));
  }
  return opened;
}

/** The model, through the adapter of its name where there is one, then the other adapters. */
async function servedModels(
  model: OpenModel,
  engine: Engine,
  name: string,
  adapters: ReadonlyMap<string, AdapterFolder>,
): Promise<ServedModel[]> {
  const served = await servedModel(model, engine, name, adapters.has(name) ? name : null);
  for (const [own, adapter] of adapters) await engine.adapters.load(own, adapter);
  const others = [...adapters.keys()].filter((own) => own !== name);
  return [served, ...others.map((own) => throughAdapter(served, own))];
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
