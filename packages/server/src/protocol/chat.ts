import { z } from "zod";
import { sampling, text, unsupported, whole } from "./fields.ts";

const part = z.strictObject({ type: z.literal("text", 'must be "text": this model reads no other'), text });

const message = z.looseObject(
  {
    role: z.enum(
      ["system", "developer", "user", "assistant", "tool"],
      "must be system, developer, user, assistant or tool",
    ),
    content: z.union([text, z.array(part)], 'must be a text or a list of {type: "text", text}'),
  },
  "must be an object with role and content",
);

/** The body of POST /v1/chat/completions. */
export const chatBody = z.strictObject({
  ...sampling,
  messages: z.array(message, "must be a list of messages").min(1, "must hold at least one message"),
  max_tokens: whole(1, 0x7fffffff).nullish(),
  max_completion_tokens: whole(1, 0x7fffffff).nullish(),
  logprobs: z.boolean("must be true or false").nullish(),
  top_logprobs: whole(0, 20).nullish(),
  /** Variables of the chat template, as vLLM takes them. */
  chat_template_kwargs: z.record(z.string(), z.unknown(), "must be an object").nullish(),
  response_format: z
    .looseObject({ type: z.literal("text", 'must be "text": this server does not constrain answers') })
    .nullish(),
  tools: z.array(z.never("is not supported by this server"), "must be a list").nullish(),
  tool_choice: z.literal(["none", "auto"], "is not supported by this server").nullish(),
  parallel_tool_calls: z.unknown().optional(),
  functions: unsupported(""),
  function_call: unsupported(""),
  modalities: z.array(z.literal("text", 'must be "text"')).nullish(),
  audio: unsupported(""),
  reasoning_effort: unsupported(": give the model's own switch in chat_template_kwargs"),
});

export type ChatBody = z.infer<typeof chatBody>;
