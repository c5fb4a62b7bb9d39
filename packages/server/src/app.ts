import { createHash, timingSafeEqual } from "node:crypto";
import { type Context, Hono } from "hono";
import { bodyLimit } from "hono/body-limit";
import type { z } from "zod";
import type { Admission } from "./admission.ts";
import { ApiError, apiErrorOf } from "./api-error.ts";
import { answerChat } from "./chat.ts";
import { answerCompletion } from "./completions.ts";
import type { ServerLimits } from "./limits.ts";
import { foreignName } from "./listen.ts";
import type { Metrics } from "./metrics.ts";
import type { ModelService } from "./model-service.ts";
import { parseBody } from "./protocol/body.ts";
import { chatBody } from "./protocol/chat.ts";
import { completionBody } from "./protocol/completion.ts";
import { detokenizeBody, tokenizeBody } from "./protocol/tokens.ts";
import { type RequestContext, requestSignal } from "./request-context.ts";
import { detokenize, tokenize, tokenizerInfo } from "./tokens.ts";

/** What the routes share. */
export interface AppState {
  /** By name; adapters are further names over a model's engine. */
  services: ReadonlyMap<string, ModelService>;
  apiKey: string | null;
  /** It listens on this machine's own address only. */
  local: boolean;
  limits: ServerLimits;
  admission: Admission;
  metrics: Metrics;
  /** Aborted when requests that still run are to be cut off. */
  stopped: AbortSignal;
  /** Hears of failures that are no client's fault. */
  onFailure(error: unknown): void;
}

/** Paths under which requests are counted. */
export const paths = [
  "/v1/completions",
  "/v1/chat/completions",
  "/v1/models",
  "/tokenize",
  "/detokenize",
  "/tokenizer_info",
  "/health",
  "/metrics",
] as const;

/** The HTTP interface, without a socket. */
export function createApp(state: AppState): Hono {
  const app = new Hono();
  app.onError((error, c) => respondWithError(error, c, state));
  app.notFound((c) => {
    const message = `There is nothing at ${c.req.method} ${c.req.path}.`;
    return respondWithError(new ApiError(404, message, { code: "not_found" }), c, state);
  });
  app.get("/health", (c) => c.json({ status: "ok" }));
  app.use(async (c, next) => {
    authorize(c, state.apiKey);
    if (state.local && state.apiKey === null) refuseForeignName(c);
    await next();
  });
  app.use(bodyLimit({ maxSize: state.limits.bodyBytes, onError: () => tooLarge(state.limits) }));
  addModelRoutes(app, state);
  app.get("/metrics", async (c) =>
    c.text(await state.metrics.text(), 200, { "content-type": state.metrics.contentType }),
  );
  app.post("/v1/completions", (c) => generating(c, state, completionBody, answerCompletion));
  app.post("/v1/chat/completions", (c) => generating(c, state, chatBody, answerChat));
  app.post("/tokenize", async (c) => {
    const body = await readBody(c, tokenizeBody, state.limits);
    return c.json(tokenize(body, serviceFor(body.model, state)));
  });
  app.post("/detokenize", async (c) => {
    const body = await readBody(c, detokenizeBody, state.limits);
    return c.json(detokenize(body.tokens, serviceFor(body.model, state)));
  });
  app.get("/tokenizer_info", (c) => c.json(tokenizerInfo(serviceFor(c.req.query("model"), state))));
  return app;
}

function addModelRoutes(app: Hono, state: AppState): void {
  app.get("/v1/models", (c) => {
    return c.json({ object: "list", data: [...state.services.values()].map(({ entry }) => entry) });
  });
  app.get("/v1/models/:name{.+}", (c) => c.json(serviceFor(c.req.param("name"), state).entry));
}

/** Runs a request that generates, with a signal that ends it in time. */
async function generating<T extends { model?: string | null | undefined }>(
  c: Context,
  state: AppState,
  schema: z.ZodType<T>,
  answer: (body: T, context: RequestContext) => Promise<Response>,
): Promise<Response> {
  const { limits, admission, metrics, stopped, onFailure } = state;
  const began = performance.now();
  const body = await readBody(c, schema, limits);
  const service = serviceFor(body.model, state);
  const { signal, release } = requestSignal([c.req.raw.signal, stopped], limits.requestTimeout);
  try {
    return await answer(body, { service, limits, admission, metrics, signal, release, began, onFailure });
  } catch (error) {
    release();
    throw error;
  }
}

function serviceFor(name: string | null | undefined, { services }: AppState): ModelService {
  const service = name == null ? services.values().next().value : services.get(name);
  if (service !== undefined) return service;
  const message = `There is no model ${JSON.stringify(name)} here; there is ${[...services.keys()].join(", ")}.`;
  throw new ApiError(404, message, { param: "model", code: "model_not_found" });
}

async function readBody<T>(c: Context, schema: z.ZodType<T>, limits: ServerLimits): Promise<T> {
  // A page in a browser may send other types across origins without being asked; this one it may not.
  const type = c.req.header("content-type")?.split(";")[0]?.trim().toLowerCase();
  if (type !== "application/json") {
    throw new ApiError(415, "The body must be sent as content-type: application/json.", { code: "unsupported_type" });
  }
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    const error = new ApiError(400, "The body did not arrive in time.", { code: "timeout" });
    timer = setTimeout(() => reject(error), limits.receiveTimeout);
  });
  try {
    return parseBody(schema, await Promise.race([c.req.text(), late]));
  } finally {
    clearTimeout(timer);
  }
}

/** @throws ApiError 401 unless the request carries the key. */
function authorize(c: Context, apiKey: string | null): void {
  if (apiKey === null) return;
  const given = /^Bearer +(.+)$/i.exec(c.req.header("authorization") ?? "")?.[1] ?? "";
  // Hashes have one length whatever was given, so that comparing them takes one time.
  const digest = (text: string) => createHash("sha256").update(text).digest();
  if (timingSafeEqual(digest(given), digest(apiKey))) return;
  throw new ApiError(401, "Give the server's key as `Authorization: Bearer KEY`.", { code: "invalid_api_key" });
}

/** @throws ApiError 403 */
function refuseForeignName(c: Context): void {
  const name = foreignName(c.req.header("host") ?? "");
  if (name === null) return;
  const message = `This server listens on its own machine and does not answer to the name ${JSON.stringify(name)}; give it a key.`;
  throw new ApiError(403, message, { code: "foreign_host" });
}

function tooLarge({ bodyBytes }: ServerLimits): Response {
  const error = new ApiError(413, `The body is larger than ${bodyBytes} bytes.`, { code: "body_too_large" });
  return Response.json(error.body, { status: 413, headers: { connection: "close" } });
}

function respondWithError(error: unknown, c: Context, state: AppState): Response {
  const known = apiErrorOf(error);
  // Who has left gets no answer, and broke off what was done for him: no failure of ours.
  if (known.status === 500 && !c.req.raw.signal.aborted) state.onFailure(error);
  if (known.retryAfter !== undefined) c.header("retry-after", String(known.retryAfter));
  if (known.status === 401) c.header("www-authenticate", "Bearer");
  return c.json(known.body, known.status);
}
