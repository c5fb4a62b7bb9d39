import { z } from "zod";

/** Text that can be encoded. */
export const text = z
  .string("must be a string")
  .refine((value) => value.isWellFormed(), "holds half of a surrogate pair, which is no text");

export function whole(least: number, most: number): z.ZodType<number> {
  const range = `must be a whole number from ${least} to ${most}`;
  return z.number(range).int(range).min(least, range).max(most, range);
}

function real(least: number, most: number): z.ZodType<number> {
  const range = `must be a number from ${least} to ${most}`;
  return z.number(range).min(least, range).max(most, range);
}

const large = 0x7fffffff;

export const tokenId = whole(0, large);

export const tokenIds = z.array(tokenId, "must be a list of token ids").min(1, "must hold at least one token id");

const stopStrings = z.array(text.min(1, "must not be empty")).max(16, "must hold at most 16 texts");

/** A field whose effect this server does not have: it is refused, not ignored. */
export function unsupported(what: string) {
  return z.null(`is not supported by this server${what}`).optional();
}

/** What /v1/completions and /v1/chat/completions have in common. */
export const sampling = {
  model: text.nullish(),
  stream: z.boolean("must be true or false").nullish(),
  stream_options: z
    .looseObject({ include_usage: z.boolean("must be true or false").nullish() }, "must be an object")
    .nullish(),
  n: whole(1, 1024).nullish(),
  seed: whole(0, Number.MAX_SAFE_INTEGER).nullish(),
  stop: z
    .union(
      [text.min(1, "must not be empty"), stopStrings],
      "must be a text or a list of at most 16, none of them empty",
    )
    .nullish(),
  temperature: real(0, 100).nullish(),
  top_p: z.number("must be a number").gt(0, "must be above 0").max(1, "must be at most 1").nullish(),
  /** Not of OpenAI, but of vLLM and others; -1 and 0: all tokens. */
  top_k: whole(-1, large).nullish(),
  max_tokens: whole(0, large).nullish(),
  // Would change what is sampled, so it is not ignored.
  frequency_penalty: z.literal(0, "must be 0: this server knows no penalties").nullish(),
  presence_penalty: z.literal(0, "must be 0: this server knows no penalties").nullish(),
  logit_bias: z.strictObject({}, "must be empty: this server knows no biases").nullish(),
  // Says who asks and what for, and changes nothing of the answer.
  user: text.nullish(),
  metadata: z.unknown().optional(),
  store: z.unknown().optional(),
  service_tier: z.unknown().optional(),
  safety_identifier: z.unknown().optional(),
  prompt_cache_key: z.unknown().optional(),
};
