import { randomInt, randomUUID } from "node:crypto";
import { ApiError } from "./api-error.ts";
import type { Piece } from "./choice.ts";
import { endOfStream, event, eventStream } from "./event-stream.ts";
import { Job, type JobSettings } from "./job.ts";
import type { RequestContext } from "./request-context.ts";

/** The fields of a request that say how its completions are sampled. */
export interface SamplingFields {
  n?: number | null | undefined;
  seed?: number | null | undefined;
  stop?: string | string[] | null | undefined;
  temperature?: number | null | undefined;
  top_p?: number | null | undefined;
  top_k?: number | null | undefined;
}

export function jobSettings(
  fields: SamplingFields,
  { maxNewTokens, topLogProbs, endTokens }: { maxNewTokens: number; topLogProbs: number; endTokens: readonly number[] },
): JobSettings {
  return {
    n: fields.n ?? 1,
    seed: fields.seed ?? randomInt(2 ** 48 - 1),
    stop: typeof fields.stop === "string" ? [fields.stop] : (fields.stop ?? []),
    temperature: fields.temperature ?? 1,
    topP: fields.top_p ?? 1,
    topK: Math.max(0, fields.top_k ?? 0),
    maxNewTokens,
    topLogProbs,
    endTokens,
  };
}

export interface Usage {
  prompt_tokens: number;
  completion_tokens: number;
  total_tokens: number;
}

/** How one of the endpoints words its answers. */
export interface Wording {
  /** "cmpl" */
  idPrefix: string;
  /** Of the whole answer and of an event of a stream. */
  object: string;
  chunkObject: string;
  /** What stands in a stream before the first token, if anything. */
  beginning(index: number): object | null;
  /** What a choice gained, as an event tells it. */
  chunk(index: number, piece: Piece): object;
  /** A whole choice. */
  choice(index: number, piece: Piece): object;
}

interface Generation {
  prompts: readonly (readonly number[])[];
  /** The field that they come from. */
  field: string;
  settings: JobSettings;
  stream: boolean;
  includeUsage: boolean;
  /** Called when the request has its place, before anything is generated. Returns how the answer is worded. */
  prepare(): Promise<Wording>;
}

/** Waits for a place, generates, and answers: whole, or as a stream of events. */
export async function generateAnswer(context: RequestContext, generation: Generation): Promise<Response> {
  const { prompts, settings } = generation;
  const { limits, service, signal } = context;
  if (prompts.length * settings.n > limits.choices) {
    const message = `${prompts.length} prompts with ${settings.n} completions each are more than ${limits.choices}.`;
    throw new ApiError(400, message, { param: "n", code: "invalid_value" });
  }
  for (const ids of prompts) service.checkPrompt(ids, settings.maxNewTokens, generation.field);
  const release = await context.admission.enter(signal);
  let job: Job | null = null;
  const close = () => {
    job?.end();
    release();
    context.release();
  };
  try {
    const wording = await generation.prepare();
    signal.throwIfAborted();
    context.metrics.promptTokens.inc(prompts.reduce((sum, ids) => sum + ids.length, 0));
    // The place is free when all is generated: a client that reads slowly keeps others from nothing.
    const { adapter, tokenizer } = service.model;
    job = new Job(service.scheduler, tokenizer, prompts, { ...settings, adapter }, release);
    const head = {
      id: `${wording.idPrefix}-${randomUUID().replaceAll("-", "")}`,
      created: Math.floor(Date.now() / 1000),
      model: service.model.name,
      system_fingerprint: service.fingerprint,
    };
    if (generation.stream) {
      return eventStream(chunks(context, generation, job, wording, head), close, context.onFailure);
    }
    await job.done(signal);
    const choices = job.choices.map((choice) => wording.choice(choice.index, choice.read()));
    const body = { ...head, object: wording.object, choices, usage: usageOf(prompts, job) };
    close();
    return Response.json(body);
  } catch (error) {
    close();
    throw error;
  }
}

async function* chunks(
  context: RequestContext,
  { prompts, includeUsage }: Generation,
  job: Job,
  wording: Wording,
  head: object,
): AsyncGenerator<string> {
  const chunk = (choice: object) =>
    event({
      ...head,
      object: wording.chunkObject,
      choices: [choice],
      // As OpenAI has it: null in every event but the last where usage is asked for.
      ...(includeUsage ? { usage: null } : {}),
    });
  const beginnings = job.choices.map(({ index }) => wording.beginning(index)).filter((one) => one !== null);
  if (beginnings.length > 0) yield beginnings.map(chunk).join("");
  for (let first = true; !job.finished || job.choices.some(({ unread }) => unread); first = false) {
    await job.changed(context.signal);
    if (first) context.metrics.firstTokenSeconds.observe((performance.now() - context.began) / 1000);
    const fresh = job.choices.filter(({ unread }) => unread);
    yield fresh.map((choice) => chunk(wording.chunk(choice.index, choice.read()))).join("");
  }
  if (includeUsage) {
    yield event({ ...head, object: wording.chunkObject, choices: [], usage: usageOf(prompts, job) });
  }
  yield endOfStream;
}

function usageOf(prompts: readonly (readonly number[])[], job: Job): Usage {
  const promptTokens = prompts.reduce((sum, ids) => sum + ids.length, 0);
  return {
    prompt_tokens: promptTokens,
    completion_tokens: job.newTokens,
    total_tokens: promptTokens + job.newTokens,
  };
}
