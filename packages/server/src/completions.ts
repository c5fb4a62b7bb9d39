import { generateAnswer, jobSettings, type Wording } from "./answer.ts";
import { ApiError, asClientFault } from "./api-error.ts";
import type { LoggedToken, Piece } from "./choice.ts";
import { completionLogProbs } from "./log-probs.ts";
import type { ModelService } from "./model-service.ts";
import type { CompletionBody } from "./protocol/completion.ts";
import type { RequestContext } from "./request-context.ts";

/** OpenAI's. */
const defaultMaxTokens = 16;

interface Prompt {
  ids: readonly number[];
  text: string;
}

/** Answers POST /v1/completions. */
export function answerCompletion(body: CompletionBody, context: RequestContext): Promise<Response> {
  const { service } = context;
  const prompts = promptsOf(body.prompt, service);
  const maxNewTokens = body.max_tokens ?? defaultMaxTokens;
  const echo = body.echo ?? false;
  if (maxNewTokens === 0 && !echo) {
    throw new ApiError(400, "max_tokens: must be at least 1, unless echo is true.", { param: "max_tokens" });
  }
  if (body.best_of != null && body.best_of !== (body.n ?? 1)) {
    throw new ApiError(400, "best_of: must be equal to n: this server gives all that it samples.", {
      param: "best_of",
    });
  }
  const settings = jobSettings(body, {
    maxNewTokens,
    topLogProbs: body.logprobs ?? 0,
    endTokens: service.model.endTokens,
  });
  return generateAnswer(context, {
    prompts: prompts.map(({ ids }) => ids),
    field: "prompt",
    settings,
    stream: body.stream ?? false,
    includeUsage: body.stream_options?.include_usage ?? false,
    async prepare() {
      const echoes = echo ? await echoesOf(prompts, body.logprobs ?? null, service) : null;
      return completionWording(service, {
        logProbs: body.logprobs != null,
        echoOf: (index) => echoes?.[Math.floor(index / settings.n)] ?? null,
      });
    },
  });
}

function promptsOf(prompt: CompletionBody["prompt"], { model }: ModelService): Prompt[] {
  const list = typeof prompt === "string" ? [prompt] : typeof prompt[0] === "number" ? [prompt] : prompt;
  return (list as (string | number[])[]).map((one) => {
    if (typeof one !== "string") return { ids: one, text: model.tokenizer.decode(one, { skipSpecial: false }) };
    return { ids: asClientFault("prompt", () => model.tokenizer.encode(one, { special: true })), text: one };
  });
}

/** A prompt as it comes back in front of its completions. */
interface Echo {
  text: string;
  tokens: LoggedToken[];
}

function echoesOf(prompts: readonly Prompt[], top: number | null, { model, scorer }: ModelService): Promise<Echo[]> {
  return Promise.all(
    prompts.map(async ({ ids, text }) => {
      if (top === null) return { text, tokens: [] };
      let offset = 0;
      const tokens = (await scorer.score(ids, model.adapter, top)).map((token) => {
        const placed = { ...token, offset };
        offset += model.tokenizer.tokenText(token.id).length;
        return placed;
      });
      return { text, tokens };
    }),
  );
}

interface CompletionOptions {
  logProbs: boolean;
  echoOf(index: number): Echo | null;
}

function completionWording({ model }: ModelService, { logProbs, echoOf }: CompletionOptions): Wording {
  const choice = (index: number, { text, tokens, finishReason }: Piece, offset: number) => ({
    index,
    text,
    logprobs: logProbs ? completionLogProbs(model.tokenizer, tokens, offset) : null,
    finish_reason: finishReason,
  });
  const withEcho = (index: number, piece: Piece) => {
    const echo = echoOf(index);
    if (echo === null) return choice(index, piece, 0);
    const generated = piece.tokens.map((token) => ({ ...token, offset: echo.text.length + token.offset }));
    return choice(index, { ...piece, text: echo.text + piece.text, tokens: [...echo.tokens, ...generated] }, 0);
  };
  return {
    idPrefix: "cmpl",
    object: "text_completion",
    chunkObject: "text_completion",
    beginning(index) {
      const echo = echoOf(index);
      return echo === null ? null : choice(index, { ...echo, finishReason: null }, 0);
    },
    chunk: (index, piece) => choice(index, piece, echoOf(index)?.text.length ?? 0),
    choice: withEcho,
  };
}
