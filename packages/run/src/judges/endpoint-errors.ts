import { isObject, type Place, systemErrorCode, TemporaError } from "@tempora/errors";
import OpenAI from "openai";
import type { EndpointSettings } from "../settings/judge-settings.ts";

/** What became of one question's requests. */
export interface Exchange {
  /** Requests sent: the first one and what the library sent again. */
  requests: number;
  /** The last reply that was an error, as it came. */
  refusal: string;
}

/** A reply with status 200 that is no chat completion. */
export class NoCompletion extends Error {}

/** Longer bodies say no more: a page, a stack. */
const mostShown = 300;

/**
 * What servers call a question without room in their context: OpenAI, vLLM, SGLang, llama.cpp, TGI and the services behind
 * OpenAI's interface each word it in their own way; only two of them have a code for it.
 */
const overflowCodes = ["context_length_exceeded", "exceed_context_size_error"];
const overflowStatuses = [400, 413, 422];
const overflowWords =
  /context[ _-]?(?:length|window|size|limit)|(?:maximum|max) (?:model|prompt|input) length|(?:prompt|input) is too long|max_new_tokens`? must be|input length should be|too many tokens|maximum number of tokens/i;

/** Whether the server refuses this one question because it is too long, which says nothing of the next one. */
export function isContextOverflow(error: unknown, { refusal }: Exchange): boolean {
  if (!(error instanceof OpenAI.APIError)) return false;
  const { code, type, status } = error;
  if (overflowCodes.some((known) => code === known || type === known)) return true;
  return overflowStatuses.includes(status ?? 0) && overflowWords.test(refusal);
}

/** What the user reads of a question that got no answer. */
export function endpointError(
  error: unknown,
  { requests, refusal }: Exchange,
  endpoint: EndpointSettings,
  asked: Place | undefined,
): TemporaError {
  const place = asked?.row === undefined ? "" : ` (judging row ${asked.row} of ${asked.file})`;
  const status = error instanceof OpenAI.APIError ? error.status : undefined;
  const message = error instanceof Error ? error.message : String(error);
  const reason = status === undefined ? `${message}${causeOf(error)}` : `${status} ${reasonOf(refusal)}`.trimEnd();
  const gives = error instanceof NoCompletion ? "gives no chat completion" : "does not answer";
  const verb = status === undefined ? gives : "refuses";
  const tried = requests === 1 ? "The request was sent once." : `The request was sent ${requests} times.`;
  return new TemporaError(`The judge's endpoint ${verb}${place}: ${reason}`, {
    where: { file: endpoint.baseUrl, field: "judge.endpoint" },
    remedy: `${remedyOf(status, error, endpoint)} ${tried} Judgements made so far are kept: start again to go on.`,
    cause: error,
  });
}

function remedyOf(status: number | undefined, error: unknown, endpoint: EndpointSettings): string {
  const { apiKeyVariable, model, maxTokensName } = endpoint;
  const address = "Check the address, which mostly ends with /v1";
  if (error instanceof NoCompletion) return `${address}.`;
  if (error instanceof OpenAI.APIConnectionTimeoutError) {
    return `Give it more than ${endpoint.timeoutSeconds} s (judge.endpoint.timeoutSeconds), or ask for less at once (judge.endpoint.concurrency).`;
  }
  if (status === undefined) return "Check that the server runs at this address.";
  if (status === 401 || status === 403) return `Put its key into the environment as ${apiKeyVariable}.`;
  if (status === 404) return `${address}, and that the server knows the model ${model}.`;
  if (status === 429) return "Ask for less at once (judge.endpoint.concurrency), or later.";
  if (status < 500) {
    return `Correct what the server does not take: the model (${model}), judge.sampling, or maxTokensName (${maxTokensName}).`;
  }
  return "Look into the server's own log.";
}

/** " (ECONNREFUSED)": what the system says of a connection that failed. */
function causeOf(error: unknown): string {
  for (let cause: unknown = error; cause instanceof Error; cause = cause.cause) {
    const code = systemErrorCode(cause);
    if (code !== undefined) return ` (${code})`;
  }
  return "";
}

/** A server's reason without what is around it: JSON by several conventions, a page's title. */
function reasonOf(body: string): string {
  const page = /<title>([^<]*)<\/title>/i.exec(body)?.[1];
  const text = page ?? stated(body) ?? body;
  const line = text.replace(/\s+/g, " ").trim();
  return line.length > mostShown ? `${line.slice(0, mostShown)}…` : line;
}

function stated(body: string): string | null {
  let value: unknown;
  try {
    value = JSON.parse(body);
  } catch {
    return null;
  }
  if (!isObject(value)) return null;
  const { error, message, detail } = value;
  for (const one of [isObject(error) ? error.message : error, message, detail]) if (typeof one === "string") return one;
  return null;
}

/** @throws NoCompletion where a web page or something else answers in place of a judge. */
export function requireCompletion(completion: unknown): void {
  if (isObject(completion) && Array.isArray(completion.choices)) return;
  const body = typeof completion === "string" ? completion : (JSON.stringify(completion) ?? "");
  const said = reasonOf(body);
  const what = /^\s*</.test(body) ? "a web page" : "something else";
  throw new NoCompletion(said === "" ? what : `${what}, ${said}`);
}
