import { defaultCollapseLimits } from "@tempora/preferences";
import type { Conversation } from "@tempora/text";
import { z } from "zod";
import { judgeTemplateSchema } from "./judge-template.ts";
import { sampling } from "./sampling-settings.ts";

const share = z.number().min(0).max(1);
const count = z.int().min(1);
const name = z.string().min(1);

export const judgeKinds = ["sampled", "expected", "function", "endpoint"] as const;
export type JudgeKind = (typeof judgeKinds)[number];

/**
 * What a judge of one's own is given: prompts and answers, and every other column of the prompts' rows under its name, one
 * value an answer each.
 */
export interface JudgeBatch {
  prompts: Conversation[];
  answers: string[];
  [column: string]: unknown[];
}

/** One score an answer, in their order; null where it has nothing to say: such an answer goes into no pair. */
export type JudgeScores = readonly (number | null)[];

const judgeFunction = z.strictObject({
  /** For the report: "bullets". */
  name,
  score: z.custom<(batch: JudgeBatch) => JudgeScores | Promise<JudgeScores>>((value) => typeof value === "function", {
    error: "must be a function",
  }),
  /** In the weighted sum with the others. A negative one is a penalty. */
  weight: z.number().default(1),
  /** Scores of nothing and of everything: they become 0 and 1 before they are weighed. Scores may lie beyond. */
  range: z
    .tuple([z.number(), z.number()])
    .refine(([low, high]) => low < high, "must be two numbers, the lower first")
    .default([0, 1]),
  /**
   * What decides its scores; part of the stages' keys. Left out, `tempora train` takes a hash of the function's source and
   * of all that it imports. A judge that reads anything else (a file, a server) must name a version.
   */
  version: name.optional(),
});

const endpoint = z.strictObject({
  /** Of an OpenAI-compatible server: "http://localhost:8000/v1". */
  baseUrl: z.url(),
  /** The server's name of the model. */
  model: name,
  /** Environment variable that holds the key; a server that asks for none needs none. */
  apiKeyVariable: name.default("OPENAI_API_KEY"),
  /** What the server calls the most tokens of an answer: newer models of OpenAI take only the second. */
  maxTokensName: z.enum(["max_tokens", "max_completion_tokens"]).default("max_tokens"),
  /** Requests under way at once. */
  concurrency: count.default(8),
  /** Of one request that failed for a passing reason, with growing pauses. */
  retries: z.int().min(0).default(5),
  timeoutSeconds: z.number().positive().default(120),
});

export const judgeSettings = z.strictObject({
  /**
   * sampled: judgements in words, as in the paper; expected: the score read from the model's probabilities; function:
   * functions of one's own; endpoint: judgements in words by an OpenAI-compatible server.
   */
  kind: z.enum(judgeKinds),
  /** Whose weights judge. current: the model in training, as in the paper; frozen: M0; external: `model`, named as the other one. */
  role: z.enum(["current", "frozen", "external"]),
  model: name.nullable(),
  functions: z.array(judgeFunction),
  /** A judge of quality that is weighed with the functions, which it complements; null: none. */
  quality: z
    .strictObject({ kind: z.enum(["sampled", "expected", "endpoint"]), weight: z.number().positive() })
    .nullable(),
  endpoint: endpoint.nullable(),
  /** Judgements averaged for each answer. */
  judgements: count,
  aggregation: z.enum(["mean", "median"]),
  /** How often a judgement that does not parse is sampled again. */
  retries: z.int().min(0),
  sampling,
  /**
   * Judge's instruction with one {prompt} and one {response}, or the name of one that comes with the program; null: the
   * checkpoint's own, else the five-point rubric, or a yes-or-no question where the kind is "expected".
   */
  template: z.union([name, judgeTemplateSchema]).nullable(),
  /** Measures the gap of pairs that a judge of kind "expected" picked; null: the yes-or-no question in other words. */
  secondTemplate: z.union([name, judgeTemplateSchema]).nullable(),
  /** Held-back judgements of each answer of a pair, which measure its gap but do not pick it; 0: none. */
  heldBack: z.int().min(0),
  /** When a judge counts as collapsed and the run stops. */
  limits: z.strictObject({
    minJudgements: z.int().min(0),
    maxFailureRate: share,
    minVariance: z.number().min(0),
    maxEqualShare: share,
    maxTieRate: share,
  }),
});

export type JudgeSettings = z.infer<typeof judgeSettings>;
export type JudgeFunction = z.infer<typeof judgeFunction>;
export type EndpointSettings = z.infer<typeof endpoint>;

/** A function as a configuration gives it. `score` may name the columns that it reads: `({ answers, truth }) => …`. */
export interface ConfiguredFunction extends Omit<z.input<typeof judgeFunction>, "score"> {
  score(batch: JudgeBatch): JudgeScores | Promise<JudgeScores>;
}

/** The judge of the paper, with our choice where it is silent. */
export const paperJudge: JudgeSettings = {
  kind: "sampled",
  role: "current",
  model: null,
  functions: [],
  quality: null,
  endpoint: null,
  judgements: 3,
  aggregation: "mean",
  retries: 3,
  sampling: { temperature: 0.7, topP: 0.9, topK: 0, maxNewTokens: 256 },
  template: null,
  secondTemplate: null,
  heldBack: 1,
  limits: defaultCollapseLimits,
};
