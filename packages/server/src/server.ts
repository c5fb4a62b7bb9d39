import type { IncomingMessage, Server, ServerResponse } from "node:http";
import { createAdaptorServer } from "@hono/node-server";
import type { BatchOptions } from "@tempora/engine";
import { Admission } from "./admission.ts";
import { ApiError } from "./api-error.ts";
import { createApp, paths } from "./app.ts";
import { defaultLimits, type ServerLimits } from "./limits.ts";
import { isLoopback, listen } from "./listen.ts";
import { Metrics } from "./metrics.ts";
import { type ModelService, modelServices } from "./model-service.ts";
import type { ServedModel } from "./served-model.ts";

export interface ServerOptions {
  /** At least one; the first answers requests that name none. */
  models: readonly ServedModel[];
  /** Default 127.0.0.1: only this machine. */
  host?: string | undefined;
  /** 0 takes any free port. */
  port: number;
  /** What every request but /health must carry; null: nothing. */
  apiKey?: string | null | undefined;
  /** Of each engine's batch: rows and cache. */
  batch?: BatchOptions | undefined;
  limits?: Partial<ServerLimits> | undefined;
  /** Hears of failures that are no client's fault. */
  onFailure?: ((error: unknown) => void) | undefined;
}

export interface RunningServer {
  /** "http://127.0.0.1:8000" */
  url: string;
  /** Requests that generate or score now, those that wait for a place, and completions in the batch. */
  readonly load: { running: number; waiting: number; rows: number };
  /**
   * Takes no new request, waits for those that run as long as the limits allow, and cuts off what is left. The engines are
   * free afterwards.
   */
  close(): Promise<void>;
}

/** Serves models by OpenAI's interface. @throws TemporaError when the address or the cache's memory cannot be taken. */
export async function startServer(options: ServerOptions): Promise<RunningServer> {
  const limits = { ...defaultLimits, ...options.limits };
  const admission = new Admission(limits.concurrency, limits.queue);
  const stop = new AbortController();
  const metrics: Metrics = new Metrics(() => readings(services, admission));
  const services = modelServices(options.models, { limits, batch: options.batch ?? {}, metrics });
  const host = options.host ?? "127.0.0.1";
  const app = createApp({
    services,
    local: isLoopback(host),
    apiKey: options.apiKey ?? null,
    limits,
    admission,
    metrics,
    stopped: stop.signal,
    onFailure: options.onFailure ?? (() => {}),
  });
  const server = createAdaptorServer({
    fetch: app.fetch,
    serverOptions: {
      maxHeaderSize: limits.headerBytes,
      headersTimeout: limits.receiveTimeout,
      requestTimeout: limits.receiveTimeout,
      connectionsCheckingInterval: Math.min(1000, limits.receiveTimeout),
    },
  }) as Server;
  server.maxConnections = limits.connections;
  server.on("request", (request, response) => watch(request, response, metrics, limits));
  for (const scheduler of schedulers(services)) await scheduler.start();
  const url = await listen(server, host, options.port);
  return {
    url,
    get load() {
      return loadOf(services, admission);
    },
    close: () => close(server, { services, admission, stop, limits }),
  };
}

/** One an engine. */
function schedulers(services: ReadonlyMap<string, ModelService>) {
  return new Set([...services.values()].map(({ scheduler }) => scheduler));
}

function loadOf(services: ReadonlyMap<string, ModelService>, admission: Admission): RunningServer["load"] {
  const rows = [...schedulers(services)].reduce((sum, scheduler) => sum + scheduler.rows, 0);
  return { running: admission.running, waiting: admission.waiting, rows };
}

function readings(services: ReadonlyMap<string, ModelService>, admission: Admission) {
  const memory: Record<string, number> = {};
  for (const engine of new Set([...services.values()].map(({ model }) => model.engine))) {
    for (const [use, bytes] of Object.entries(engine.memory())) memory[use] = (memory[use] ?? 0) + bytes;
  }
  return { ...loadOf(services, admission), memory };
}

/** Counts a request when its answer is out, and cuts off a client that does not take it in time. */
function watch(request: IncomingMessage, response: ServerResponse, metrics: Metrics, limits: ServerLimits): void {
  const began = performance.now();
  const asked = (request.url ?? "").split("?")[0];
  const path = paths.find((known) => known === asked) ?? "other";
  // The request's own signal comes first, and gives a client that reads an error to read.
  const timer = setTimeout(() => request.socket.destroy(), limits.requestTimeout + 1000);
  timer.unref();
  response.once("close", () => {
    clearTimeout(timer);
    metrics.requests.inc({ path, status: response.statusCode });
    metrics.requestSeconds.observe({ path }, (performance.now() - began) / 1000);
  });
}

interface Closing {
  services: ReadonlyMap<string, ModelService>;
  admission: Admission;
  stop: AbortController;
  limits: ServerLimits;
}

async function close(server: Server, { services, admission, stop, limits }: Closing): Promise<void> {
  const closed = new Promise<void>((resolve) => {
    server.close(() => resolve());
  });
  // Connections become idle one by one, as their answers are read.
  const idle = setInterval(() => server.closeIdleConnections(), 20);
  const deadline = setTimeout(() => {
    const error = new ApiError(503, "The server is stopping.", { code: "server_stopping", retryAfter: 5 });
    stop.abort(error);
    // Who still reads gets to read the error.
    setTimeout(() => server.closeAllConnections(), 500);
  }, limits.shutdownTimeout);
  await admission.close();
  await closed;
  clearTimeout(deadline);
  clearInterval(idle);
  for (const scheduler of schedulers(services)) scheduler.close();
}
