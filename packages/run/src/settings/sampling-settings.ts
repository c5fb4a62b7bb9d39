import { z } from "zod";

export const sampling = z.strictObject({
  /** 0: greedy. */
  temperature: z.number().min(0),
  topP: z.number().gt(0).max(1),
  /** 0: all tokens. */
  topK: z.int().min(0),
  maxNewTokens: z.int().min(1),
});
