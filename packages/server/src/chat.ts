import type { Message, Tokenizer } from "@tempora/text";
import { generateAnswer, jobSettings, type Wording } from "./answer.ts";
import { ApiError, asClientFault } from "./api-error.ts";
import type { LoggedToken } from "./choice.ts";
import { chatLogProbs } from "./log-probs.ts";
import type { ChatBody } from "./protocol/chat.ts";
import type { RequestContext } from "./request-context.ts";

/** Answers POST /v1/chat/completions. */
export function answerChat(body: ChatBody, context: RequestContext): Promise<Response> {
  const { service } = context;
  const { tokenizer, endTokens } = service.model;
  if (body.top_logprobs != null && body.logprobs !== true) {
    throw new ApiError(400, "top_logprobs: wants logprobs to be true.", { param: "top_logprobs" });
  }
  const ids = conversationIds(tokenizer, body.messages, { variables: body.chat_template_kwargs ?? {} });
  const settings = jobSettings(body, {
    maxNewTokens: body.max_completion_tokens ?? body.max_tokens ?? service.room(ids.length),
    topLogProbs: body.top_logprobs ?? 0,
    endTokens,
  });
  return generateAnswer(context, {
    prompts: [ids],
    field: "messages",
    settings,
    stream: body.stream ?? false,
    includeUsage: body.stream_options?.include_usage ?? false,
    prepare: () => Promise.resolve(chatWording(tokenizer, body.logprobs ?? false)),
  });
}

/** Token ids of a conversation by the model's chat template. */
export function conversationIds(
  tokenizer: Tokenizer,
  messages: ChatBody["messages"],
  { variables, addGenerationPrompt = true }: { variables: Record<string, unknown>; addGenerationPrompt?: boolean },
): number[] {
  const plain = messages.map((message): Message => ({ ...message, content: textOf(message.content) }));
  return asClientFault("messages", () =>
    tokenizer.encode(tokenizer.applyChatTemplate(plain, { addGenerationPrompt, variables })),
  );
}

function textOf(content: ChatBody["messages"][number]["content"]): string {
  return typeof content === "string" ? content : content.map(({ text }) => text).join("");
}

function chatWording(tokenizer: Tokenizer, logProbs: boolean): Wording {
  const logged = (tokens: readonly LoggedToken[]) => (logProbs ? chatLogProbs(tokenizer, tokens) : null);
  return {
    idPrefix: "chatcmpl",
    object: "chat.completion",
    chunkObject: "chat.completion.chunk",
    beginning: (index) => ({ index, delta: { role: "assistant", content: "" }, logprobs: null, finish_reason: null }),
    chunk: (index, { text, tokens, finishReason }) => ({
      index,
      delta: text === "" ? {} : { content: text },
      logprobs: logged(tokens),
      finish_reason: finishReason,
    }),
    choice: (index, { text, tokens, finishReason }) => ({
      index,
      message: { role: "assistant", content: text, refusal: null },
      logprobs: logged(tokens),
      finish_reason: finishReason,
    }),
  };
}
