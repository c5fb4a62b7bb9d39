import { z } from "zod";
import { sampling, text, tokenIds, unsupported, whole } from "./fields.ts";

const prompt = z.union(
  [text, z.array(text).min(1), tokenIds, z.array(tokenIds).min(1)],
  "must be a text, a list of texts, a list of token ids, or a list of such lists, none of them empty",
);

/** The body of POST /v1/completions. */
export const completionBody = z.strictObject({
  ...sampling,
  prompt,
  /** The most likely tokens to tell beside each token's own log-prob. */
  logprobs: whole(0, 20).nullish(),
  /** The prompt comes back in front of its completion, with its log-probs where they are asked for. */
  echo: z.boolean("must be true or false").nullish(),
  best_of: whole(1, 1024).nullish(),
  suffix: unsupported(": it completes at the end only"),
});

export type CompletionBody = z.infer<typeof completionBody>;
