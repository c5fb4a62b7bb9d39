import type { Completion, Engine, GenerationOptions } from "@tempora/engine";
import { paperSettings } from "@tempora/run";
import { type Tokenizer, withoutEnd, writeJsonl } from "@tempora/text";
import type { Command } from "commander";
import type { Context } from "../context.ts";
import { formatCount } from "../format.ts";
import { loadEngine, modelHelp, openModel } from "../model.ts";
import {
  addCacheOptions,
  addEngineOptions,
  addSamplingOptions,
  type CacheFlags,
  type EngineFlags,
  newCommand,
  type SamplingFlags,
  whenCalled,
  whole,
} from "../options.ts";
import { claimFile } from "../output.ts";
import { RowReader } from "../rows.ts";

interface GenerateFlags extends EngineFlags, SamplingFlags, CacheFlags {
  model: string;
  data: string;
  out: string;
  n: number;
  stop: string[];
}

/** A completion as the output holds it. */
export interface CompletionColumn {
  text: string;
  ids: number[];
  logprobs: number[];
  finish_reason: "stop" | "length";
}

export function generateCommand(context: Context): Command {
  const { sampling } = paperSettings;
  const command = newCommand("generate", "Sample completions to prompts", [
    "generate --model models/M1 --data prompts.jsonl --out candidates.jsonl --n 7",
    "generate --model models/M1 --data prompts.jsonl --out greedy.jsonl --temperature 0",
  ])
    .requiredOption("--model <model>", modelHelp)
    .requiredOption("--data <file>", "rows with a prompt (text or messages) or prompt_ids")
    .requiredOption("--out <file>", "the rows with completions: [{text, ids, logprobs, finish_reason}] added")
    .option("--n <count>", "completions per prompt", whole(1), 1)
    .option("--stop <text...>", "texts that end a completion", []);
  addSamplingOptions(command, { ...sampling, seed: 0 });
  return whenCalled(addCacheOptions(addEngineOptions(command)), context, generate);
}

async function generate(flags: GenerateFlags, context: Context): Promise<void> {
  context.onStopped("Nothing was written: run the same command again.");
  const out = await claimFile("--out", flags.out, [flags.data]);
  const model = await openModel(flags.model, context);
  const rows = await new RowReader(model, context).prompts(flags.data);
  const tokenizer = await model.tokenizer();
  const ends = await model.endTokens();
  using engine = await loadEngine(model, flags, context);
  const { completions, tokens } = await sample(
    engine,
    rows.map((row) => row.promptIds),
    { ...generationOptions(flags, tokenizer), endTokens: ends },
    context,
  );
  await writeJsonl(
    out,
    rows.map(({ source }, index) => ({
      ...source.value,
      completions: completions[index]!.map((completion) => column(completion, tokenizer, ends)),
    })),
  );
  context.result(
    { out, rows: rows.length, completions: rows.length * flags.n, tokens, dtype: engine.dtype, device: engine.device },
    `${rows.length * flags.n} completions of ${rows.length} prompts, ${formatCount(tokens)} tokens: ${flags.out}`,
  );
}

function generationOptions(flags: GenerateFlags, tokenizer: Tokenizer): GenerationOptions {
  const { n, temperature, topP, topK, maxNewTokens, seed, maxRows, maxCacheTokens, stop } = flags;
  const base = { n, temperature, topP, topK, maxNewTokens, seed, maxRows, maxCacheTokens };
  if (stop.length === 0) return base;
  return { ...base, stop: { strings: stop, decode: (ids) => tokenizer.decode(ids) } };
}

/** Samples [prompts][n], whatever order they end in. */
async function sample(
  engine: Engine,
  prompts: readonly number[][],
  options: GenerationOptions,
  context: Context,
): Promise<{ completions: Completion[][]; tokens: number }> {
  const completions: Completion[][] = prompts.map(() => []);
  const stage = context.progress.stage("generate", prompts.length * (options.n ?? 1), "completions");
  const began = performance.now();
  let tokens = 0;
  const stream = engine.generate(
    prompts.map((ids) => ({ ids })),
    {
      ...options,
      signal: context.signal,
      onProgress: ({ newTokens, finished }) => {
        const rate = newTokens / ((performance.now() - began) / 1000);
        stage.update(finished, `${formatCount(newTokens)} tokens · ${formatCount(rate)} tokens/s`);
      },
    },
  );
  for await (const completion of stream) {
    completions[completion.prompt]![completion.sample] = completion;
    tokens += completion.ids.length;
  }
  stage.finish();
  return { completions, tokens };
}

/** The end token is part of the ids and not of the text. */
function column(completion: Completion, tokenizer: Tokenizer, ends: readonly number[]): CompletionColumn {
  const { ids } = completion;
  return {
    text: tokenizer.decode(withoutEnd(ids, ends)),
    ids,
    logprobs: completion.logProbs,
    finish_reason: completion.finishReason,
  };
}
