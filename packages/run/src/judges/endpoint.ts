import { createHash } from "node:crypto";
import { disarmSpecialTokens, type JudgeTemplate, judgePromptParts } from "@tempora/preferences";
import OpenAI from "openai";
import { pMapIterable } from "p-map";
import { noTokens } from "../results/ledger.ts";
import type { EndpointSettings } from "../settings/judge-settings.ts";
import { templateJson } from "../settings/judge-template.ts";
import type { Settings } from "../settings/settings.ts";
import { type Exchange, endpointError, isContextOverflow, requireCompletion } from "./endpoint-errors.ts";
import { type Judge, type JudgedRows, type JudgeWork, type Response, readJudgements } from "./judge.ts";
import { type Asked, type Speaker, type Spoken, SpokenJudging } from "./spoken.ts";

export interface EndpointJudgeOptions {
  endpoint: EndpointSettings;
  template: JudgeTemplate;
  judgements: number;
  retries: number;
  sampling: Settings["sampling"];
  seed: number;
}

/** Judgements in words by an OpenAI-compatible server: vLLM, SGLang, llama.cpp, or a service. */
export function endpointJudge(options: EndpointJudgeOptions): Judge {
  const { endpoint, template, judgements, retries, sampling, seed } = options;
  const { baseUrl, model } = endpoint;
  const judge: Judge = {
    kind: "endpoint",
    name: model,
    origin: baseUrl,
    identity: {
      kind: "endpoint",
      baseUrl,
      model,
      template: templateJson(template),
      judgements,
      retries,
      sampling,
      seed,
    },
    scale: { min: 0, max: template.maxScore },
    perResponse: judgements,
    deterministic: sampling.temperature === 0,
    readsColumns: false,
    question: ({ promptText, text }) => judgePromptParts(template, promptText, text),
    judge: (responses, work) => judgeByEndpoint(judge, options, responses, work),
  };
  return judge;
}

async function judgeByEndpoint(
  judge: Judge,
  options: EndpointJudgeOptions,
  responses: readonly Response[],
  work: JudgeWork,
): Promise<JudgedRows> {
  const { judgements, retries, template } = options;
  const speaker = new EndpointSpeaker(options, responses, work.signal);
  const spoken = { judgements, retries, maxScore: template.maxScore };
  const rows = await new SpokenJudging(judge, speaker, responses, spoken, work).run();
  const totals = noTokens();
  for await (const { tokens, promptTokens } of readJudgements(work.folder, rows)) {
    totals.billedTokens += tokens;
    totals.billedPromptTokens += promptTokens ?? 0;
  }
  return { rows, totals };
}

interface Question {
  response: number;
  attempt: number;
  sample: number;
}

class EndpointSpeaker implements Speaker {
  readonly #client: OpenAI;
  /** Responses whose question the server's context does not hold. */
  readonly #tooLong = new Set<number>();

  constructor(
    readonly options: EndpointJudgeOptions,
    readonly responses: readonly Response[],
    readonly signal: AbortSignal | undefined,
  ) {
    const { baseUrl, apiKeyVariable, retries, timeoutSeconds } = options.endpoint;
    this.#client = new OpenAI({
      baseURL: baseUrl,
      // The library insists on one; servers of one's own ask for none.
      apiKey: process.env[apiKeyVariable] ?? "none",
      maxRetries: retries,
      timeout: 1000 * timeoutSeconds,
    });
  }

  /** What the server's context holds is not known here: it refuses what does not fit. */
  fits(): boolean {
    return true;
  }

  async *speak(asked: Iterable<Asked>): AsyncGenerator<Spoken> {
    const { concurrency } = this.options.endpoint;
    const ask = (question: Question) => this.#ask(question);
    yield* pMapIterable(questionsOf(asked), ask, { concurrency, backpressure: 2 * concurrency });
  }

  async #ask(question: Question): Promise<Spoken> {
    const { endpoint, sampling, template, seed } = this.options;
    const { sample, response } = question;
    if (this.#tooLong.has(response)) return noRoomFor(question);
    const { promptText, text, where } = this.responses[response] as Response;
    const exchange: Exchange = { requests: 0, refusal: "" };
    try {
      const completion = await this.#client.withOptions({ fetch: watched(exchange) }).chat.completions.create(
        {
          model: endpoint.model,
          messages: [{ role: "user", content: questionText(template, promptText, text) }],
          temperature: sampling.temperature,
          top_p: sampling.topP,
          [endpoint.maxTokensName]: sampling.maxNewTokens,
          seed: seedOf(seed, promptText, text, question),
        },
        this.signal === undefined ? {} : { signal: this.signal },
      );
      requireCompletion(completion);
      const choice = completion.choices[0];
      return {
        response,
        sample,
        text: choice?.message?.content ?? "",
        tokens: completion.usage?.completion_tokens ?? 0,
        promptTokens: completion.usage?.prompt_tokens ?? 0,
        finished: choice?.finish_reason !== "length",
      };
    } catch (error) {
      this.signal?.throwIfAborted();
      if (!isContextOverflow(error, exchange)) throw endpointError(error, exchange, endpoint, where);
      this.#tooLong.add(response);
      return noRoomFor(question);
    }
  }
}

/** No judgement: the server's context does not hold the question. */
function noRoomFor({ response, sample }: Question): Spoken {
  return { response, sample, text: "", tokens: 0, promptTokens: 0, finished: false, noRoom: true };
}

/** Counts a question's requests and keeps what the server says of one that it refuses, which the library may leave out. */
function watched(exchange: Exchange): typeof fetch {
  const send = async (...request: Parameters<typeof fetch>): Promise<globalThis.Response> => {
    exchange.requests++;
    const response = await fetch(...request);
    if (!response.ok) exchange.refusal = await response.clone().text();
    return response;
  };
  return Object.assign(send, { preconnect: fetch.preconnect });
}

function* questionsOf(asked: Iterable<Asked>): Generator<Question> {
  for (const { response, attempt, samples, have } of asked) {
    for (let sample = 0; sample < samples; sample++) if (!have.has(sample)) yield { response, attempt, sample };
  }
}

/** In what others wrote, nothing that the server's tokenizer, which is not known here, may take for a special token. */
function questionText(template: JudgeTemplate, promptText: string, text: string): string {
  const parts = judgePromptParts(template, promptText, text);
  return parts.map((part) => (typeof part === "string" ? part : disarmSpecialTokens(part.untrusted))).join("");
}

/** 31 bits: what servers take. The same question gets the same seed, whatever else is asked. */
function seedOf(seed: number, promptText: string, text: string, { attempt, sample }: Question): number {
  const key = JSON.stringify([seed, promptText, text, attempt, sample]);
  return createHash("sha256").update(key).digest().readUInt32BE(0) >>> 1;
}
