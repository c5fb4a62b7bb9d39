import { lossTypes } from "@tempora/engine";
import { strategyNames } from "@tempora/preferences";
import { dayOf } from "@tempora/text";
import { schedulers } from "@tempora/training";
import { z } from "zod";
import { judgeSettings, paperJudge } from "./judge-settings.ts";
import { sampling } from "./sampling-settings.ts";

const positive = z.number().positive();
const share = z.number().min(0).max(1);
const count = z.int().min(1);
const amount = z.number().min(0);

const training = z.strictObject({
  learningRate: amount,
  scheduler: z.enum(schedulers),
  /** null: a tenth of the steps. */
  warmupSteps: z.int().min(0).nullable(),
  weightDecay: amount,
  /** 0: no clipping. */
  maxGradNorm: amount,
  /** Pairs (supervised training: rows) of an optimizer step. */
  batchPairs: count,
  /** Tokens of a micro-batch at most: what bounds the memory. */
  maxTokens: count,
  epochs: count,
  shuffle: z.boolean(),
  betas: z.tuple([share, share]),
  epsilon: positive,
  gradientCheckpointing: z.boolean(),
});

const withoutRank =
  "options of an adapter to train stand without its rank; give --lora-rank 16, say, or leave them out";

const lora = z.strictObject({
  /** It alone has no default. */
  rank: z.int({ error: ({ input }) => (input === undefined ? withoutRank : undefined) }).min(1),
  /** The scale is alpha / rank, or alpha / √rank with rsLora; null: twice the rank. */
  alpha: positive.nullable().default(null),
  rsLora: z.boolean().default(false),
  /** Names of the matrices that are adapted, as ["q_proj", "v_proj"], or all of the blocks. */
  targets: z.union([z.literal("all-linear"), z.array(z.string().min(1)).min(1)]).default("all-linear"),
  /** Of the adapter's input, in training. */
  dropout: z.number().min(0).lt(1).default(0),
  /** How M0 is fine-tuned where there is data for it: by the adapter, or whole, before it becomes the base. */
  start: z.enum(["adapter", "full"]).default("adapter"),
});

/** Every setting of a run, complete. `TemporaConfig` is the same with every field optional. */
export const settingsSchema = z.strictObject({
  /** Path of the checkpoint that is M0, or its name on the hub; null: the embedded world, whose M0 the run trains. */
  model: z.string().min(1).nullable(),
  /** A LoRA adapter over the model, as PEFT saves it: M0 goes through it, and it is what is trained on; null: none. */
  adapter: z.string().min(1).nullable(),
  /** Trains LoRA adapters over one frozen base, which M1 and all later models are; null: the whole model. */
  lora: lora.nullable(),
  /** File, folder or pattern of prompts (JSONL, JSON, CSV, Parquet), as `promptRow` of @tempora/text reads them; needed with a model. */
  prompts: z.string().min(1).nullable(),
  /** File of held-out prompts, used whole; null: a share of `prompts` that the prompts alone decide is held out. */
  heldOutPrompts: z.string().min(1).nullable(),
  /** For fields of the prompts' rows, the columns that hold them, as { prompt: "instruction" }; null: as recognised. */
  columns: z.record(z.string(), z.string()).nullable(),
  /** A system message put before every prompt that has none; null: none. */
  system: z.string().min(1).nullable(),
  /** Variables of the chat template, such as { enable_thinking: false }; the rows' own override them. */
  chatTemplateKwargs: z.record(z.string(), z.unknown()),
  /** The day (2026-01-31) that chat templates which ask for the date are told; null: that of the run's first start. */
  date: z
    .string()
    .refine((text) => dayOf(text) !== null, "must be a day, as 2026-01-31")
    .nullable(),
  /** Leave out and count prompts whose answer has no room in the context, instead of ending the run at its start. */
  skipTooLong: z.boolean(),
  seed: z.int().min(0),
  strategy: z.enum(strategyNames),
  /** Strategies to compare with; each runs as many iterations as come nearest to the first one's FLOPs. */
  baselines: z.array(z.enum(strategyNames)),
  /**
   * Which model's answers `past` stands for in every strategy of the run: M0's, those of the model before the current one,
   * or of k models before; null: as each strategy has it.
   */
  past: z.union([z.enum(["first", "previous"]), z.strictObject({ lag: count })]).nullable(),
  /** What the next model is trained from: the current model, or the future one where there is one; null: as each strategy has it. */
  nextStartsFrom: z.enum(["current", "future"]).nullable(),
  iterations: count,
  /** Ends a strategy when so many models in a row score below the best before them on the held-out prompts; 0: never. */
  stopWhenWorse: z.int().min(0),
  /** Most iterations of a baseline, whatever compute is left. */
  maxBaselineIterations: count,
  promptsPerIteration: count,
  /** Answers sampled to each prompt by each model. */
  candidates: z.int().min(2),
  sampling,
  judge: judgeSettings,
  selection: z.strictObject({
    /** A pair is kept when its scores differ by more than this. */
    minimumGap: amount,
    /** Meta-Rewarding's length control; null: off. */
    lengthControl: z.strictObject({ rho: share }).nullable(),
    /** Answers whose length was used up: left out of the pairs, or kept, without an end token that they never had. */
    truncated: z.enum(["drop", "keep"]),
  }),
  loss: z.strictObject({
    terms: z.array(z.strictObject({ type: z.enum(lossTypes), weight: z.number() })).min(1),
    beta: positive,
    labelSmoothing: z.number().min(0).lt(0.5),
    discopopTau: positive,
    /** Weight of a supervised term on the chosen answer beside `terms`; 0: none. */
    sftWeight: amount,
  }),
  training,
  replay: z.strictObject({
    /** Weight of graded examples (EFT) trained beside the pairs in each step; 0: none. */
    weight: amount,
    /** Rows in each step. */
    perStep: count,
    /** File of {prompt, completion} rows; null: the world's own graded examples. */
    data: z.string().min(1).nullable(),
  }),
  start: z.strictObject({
    /** Files of {prompt, completion} rows to fine-tune a given model on first (IFT and EFT). */
    data: z.array(z.string().min(1)),
    /** The world's demonstrations (IFT) and graded examples (EFT). */
    demonstrations: z.int().min(0),
    gradedExamples: z.int().min(0),
    training,
  }),
  evaluation: z.strictObject({
    /** Held-out prompts at most, of `prompts` or of the world. */
    prompts: count,
    sampling,
    /** Held-out prompts whose answers by M0 every model judges, to see what its judgement is worth. */
    judgedPrompts: count,
    /** Judgements of each of them. */
    judgements: count,
  }),
  generation: z.strictObject({
    /** Rows decoded at once at most. */
    maxRows: count,
    /** Tokens of the KV cache at most. */
    maxCacheTokens: count,
  }),
  /** A long training saves its state so often (wall clock); a killed one goes on from there. The result is the same. */
  saveStateSeconds: amount,
  engine: z.strictObject({
    device: z.enum(["auto", "cpu", "cuda"]),
    /** null: the checkpoint's own. */
    dtype: z.enum(["f32", "bf16"]).nullable(),
    /** 0: all cores. */
    threads: z.int().min(0),
    /** Keeps the frozen base's matrices in 4 bits (QLoRA); needs an adapter to train. null: as dtype says. */
    quantize: z.enum(["nf4", "gguf"]).nullable(),
    /** How AdamW's moments are stored. */
    moments: z.enum(["f32", "bf16", "8bit"]),
  }),
});

export type Settings = z.infer<typeof settingsSchema>;

const paperTraining: Settings["training"] = {
  learningRate: 1e-6,
  scheduler: "linear",
  warmupSteps: null,
  weightDecay: 0,
  maxGradNorm: 1,
  batchPairs: 16,
  maxTokens: 8192,
  epochs: 1,
  shuffle: true,
  betas: [0.9, 0.999],
  epsilon: 1e-8,
  gradientCheckpointing: false,
};

/** Settings for a given checkpoint: what the paper (arXiv:2508.06026) gives, and our choice where it is silent. */
export const paperSettings: Settings = {
  model: null,
  adapter: null,
  lora: null,
  prompts: null,
  heldOutPrompts: null,
  columns: null,
  system: null,
  chatTemplateKwargs: {},
  date: null,
  skipTooLong: false,
  seed: 0,
  strategy: "temporal",
  baselines: [],
  past: null,
  nextStartsFrom: null,
  iterations: 2,
  stopWhenWorse: 0,
  maxBaselineIterations: 12,
  promptsPerIteration: 4000,
  candidates: 7,
  sampling: { temperature: 0.7, topP: 0.9, topK: 0, maxNewTokens: 512 },
  judge: paperJudge,
  selection: { minimumGap: 0, lengthControl: null, truncated: "drop" },
  loss: {
    terms: [{ type: "sigmoid", weight: 1 }],
    beta: 0.1,
    labelSmoothing: 0,
    discopopTau: 0.05,
    sftWeight: 0,
  },
  training: paperTraining,
  replay: { weight: 0, perStep: 16, data: null },
  start: {
    data: [],
    demonstrations: 0,
    gradedExamples: 0,
    training: { ...paperTraining, learningRate: 5.5e-6, scheduler: "cosine" },
  },
  evaluation: {
    prompts: 200,
    judgedPrompts: 200,
    sampling: { temperature: 0.7, topP: 0.9, topK: 0, maxNewTokens: 512 },
    judgements: 3,
  },
  generation: { maxRows: 256, maxCacheTokens: 131072 },
  saveStateSeconds: 300,
  engine: { device: "auto", dtype: null, threads: 0, quantize: null, moments: "f32" },
};
