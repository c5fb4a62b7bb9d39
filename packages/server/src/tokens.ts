import { asClientFault } from "./api-error.ts";
import { conversationIds } from "./chat.ts";
import type { ModelService } from "./model-service.ts";
import type { TokenizeBody } from "./protocol/tokens.ts";

/** Answers POST /tokenize, as vLLM does. */
export function tokenize(body: TokenizeBody, { model }: ModelService): object {
  const { tokenizer } = model;
  const ids =
    body.messages == null
      ? asClientFault("prompt", () =>
          tokenizer.encode(body.prompt as string, { special: body.add_special_tokens ?? true }),
        )
      : conversationIds(tokenizer, body.messages, {
          variables: body.chat_template_kwargs ?? {},
          addGenerationPrompt: body.add_generation_prompt ?? true,
        });
  return {
    count: ids.length,
    max_model_len: model.engine.config.maxPositions,
    tokens: ids,
    token_strs: body.return_token_strs ? ids.map((id) => tokenizer.tokenText(id)) : null,
  };
}

/** Answers POST /detokenize: special tokens are kept. */
export function detokenize(tokens: readonly number[], { model }: ModelService): object {
  return { prompt: model.tokenizer.decode(tokens, { skipSpecial: false }) };
}

/** Answers GET /tokenizer_info: the tokenizer's settings, with the tokens' names as plain texts. */
export function tokenizerInfo({ model }: ModelService): object {
  const plain = Object.entries(model.tokenizerConfig).map(([key, value]) => {
    const content = typeof value === "object" && value !== null && "content" in value ? value.content : value;
    return [key, content];
  });
  return Object.fromEntries(plain);
}
