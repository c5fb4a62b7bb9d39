import { z } from "zod";
import { chatBody } from "./chat.ts";
import { text, tokenId } from "./fields.ts";

const yes = z.boolean("must be true or false").nullish();

/** The body of POST /tokenize, as vLLM has it: a text, or a conversation for the chat template. */
export const tokenizeBody = z
  .strictObject({
    model: text.nullish(),
    prompt: text.nullish(),
    messages: chatBody.shape.messages.nullish(),
    /** What the tokenizer puts around a text. Default true for a prompt, false for messages. */
    add_special_tokens: yes,
    add_generation_prompt: yes,
    chat_template_kwargs: chatBody.shape.chat_template_kwargs,
    return_token_strs: yes,
  })
  .refine(({ prompt, messages }) => (prompt == null) !== (messages == null), {
    message: "give either prompt or messages",
    path: ["prompt"],
  });

export type TokenizeBody = z.infer<typeof tokenizeBody>;

/** The body of POST /detokenize. */
export const detokenizeBody = z.strictObject({
  model: text.nullish(),
  tokens: z.array(tokenId, "must be a list of token ids"),
});
