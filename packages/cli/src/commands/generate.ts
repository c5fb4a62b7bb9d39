import { type Json, TemporaError } from "@tempora/errors";
import {
  ContentHash,
  type LoadedModel,
  numericsOf,
  paperSettings,
  RowLog,
  type Sampled,
  textGivesIds,
} from "@tempora/run";
import { type Conversation, type RenderOptions, shownText, templateColumns, writeJsonl } from "@tempora/text";
import type { Command } from "commander";
import { type AdapterFlags, adapterOf, addAdapterOption } from "../adapter.ts";
import type { Context } from "../context.ts";
import { formatCount, formatCounted } from "../format.ts";
import { loadEngine, modelHelp, type OpenModel, openModel } from "../model.ts";
import { modelIdentity } from "../model-identity.ts";
import {
  addCacheOptions,
  addColumnsOption,
  addEngineOptions,
  addSamplingOptions,
  type CacheFlags,
  type ColumnFlags,
  type EngineFlags,
  newCommand,
  type SamplingFlags,
  whenCalled,
  wholeNumber,
} from "../options.ts";
import { claimFile } from "../output.ts";
import { PartialWork } from "../partial-work.ts";
import { type PromptIds, RowReader } from "../rows.ts";
import { type SamplePlan, samplePrompts } from "../sample-prompts.ts";
import { addSkipOption, addTextOptions, renderOptions, type SkipFlags, type TextFlags } from "../text-flags.ts";

interface GenerateFlags
  extends AdapterFlags,
    ColumnFlags,
    EngineFlags,
    SamplingFlags,
    CacheFlags,
    TextFlags,
    SkipFlags {
  model: string;
  data?: string;
  prompt: string[];
  out?: string;
  n: number;
  stop: string[];
}

/** A completion as the output holds it. */
export interface CompletionColumn {
  text: string;
  ids: number[];
  logprobs: number[];
  finish_reason: "stop" | "length";
  /** The text, after the prompt and through chat template and tokenizer, does not give the ids again. */
  text_differs?: true;
}

export function generateCommand(context: Context): Command {
  const { sampling } = paperSettings;
  const command = newCommand("generate", "Sample completions to prompts", [
    "generate --model models/M1 --data prompts.jsonl --out candidates.jsonl --n 7",
    "generate --model models/M1 --data prompts.jsonl --out greedy.jsonl --temperature 0",
    'generate --model models/M1 --prompt "Spell the word moon."',
  ])
    .requiredOption("--model <model>", modelHelp)
    .option("--data <file>", "rows with a prompt (text or messages) or prompt_ids")
    .option(
      "--prompt <text...>",
      "a prompt instead of a file, may be repeated: a user's turn where the model has a chat template",
      [],
    )
    .option(
      "--out <file>",
      "the rows with prompt_ids and completions: [{text, ids, logprobs, finish_reason}] added; without it, which --prompt may do, the answers are printed",
    )
    .option("--n <count>", "completions per prompt", wholeNumber(1), 1)
    .option("--stop <text...>", "texts that end a completion", []);
  addSkipOption(addTextOptions(command), "prompts whose answer has no room in the context");
  addSamplingOptions(command, { ...sampling, seed: 0 });
  addAdapterOption(command);
  return whenCalled(addColumnsOption(addCacheOptions(addEngineOptions(command))), context, generate);
}

async function generate(flags: GenerateFlags, context: Context): Promise<void> {
  const kept = "Completions made so far are kept: run the same command again to go on.";
  context.onStopped(flags.out === undefined ? "Run the same command again." : kept);
  checkSource(flags);
  const out = flags.out === undefined ? null : await claimFile("--out", flags.out, flags.data ? [flags.data] : []);
  const model = await openModel(flags.model, context);
  const { skipTooLong, maxNewTokens, columns } = flags;
  const render = renderOptions(flags);
  const reader = new RowReader(model, context, { render, skipTooLong, reserve: maxNewTokens, columns });
  const rows = await (flags.data === undefined ? reader.texts(flags.prompt, "--prompt") : reader.prompts(flags.data));
  const tokenizer = await model.tokenizer();
  const ends = await model.endTokens();
  await using partial = out === null ? null : await PartialWork.open(`${out}.work`, context);
  await partial?.begin({ generate: await identityOf(model, rows, flags) });
  using engine = await loadEngine(model, flags, context);
  const loaded = { engine, checkpoint: model.checkpoint, tokenizer, endTokens: ends };
  const sampled = { label: "generate", context };
  const { completions, tokens } = await (partial === null
    ? samplePrompts(loaded, rows, flags, sampled)
    : loggedSamples(partial, loaded, rows, flags, sampled));
  const results = rows.map((row, index) => ({
    ...row.source.value,
    ...promptColumns(row, render),
    prompt_ids: row.promptIds,
    completions: completions[index]!.map((completion) => column(completion, row, loaded, render)),
  }));
  const counts = { rows: rows.length, skipped: reader.skipped, completions: rows.length * flags.n, tokens };
  const machine = { dtype: engine.dtype, device: engine.device };
  if (out === null) {
    context.result({ ...counts, ...machine, results }, printed(rows, completions));
    return;
  }
  await writeJsonl(out, results);
  await partial?.done();
  const summary = `${formatCounted(counts.completions, "completion")} of ${formatCounted(rows.length, "prompt")}, ${formatCount(tokens)} tokens: ${flags.out}`;
  context.result({ out, ...counts, ...machine }, summary);
}

/** What decides the completions. */
async function identityOf(model: OpenModel, rows: readonly PromptIds[], flags: GenerateFlags): Promise<Json> {
  const { n, stop, temperature, topP, topK, maxNewTokens, seed, device, dtype, threads, quantize, adapter } = flags;
  const prompts = new ContentHash();
  for (const { promptIds } of rows) prompts.ids(promptIds);
  return {
    model: await modelIdentity(model.checkpoint, adapterOf(model, adapter === undefined ? {} : { adapter })),
    prompts: prompts.digest(),
    sampling: { n, stop: [...stop], temperature, topP, topK, maxNewTokens, seed },
    numerics: numericsOf({ device, dtype: dtype ?? null, threads, quantize: quantize ?? null }),
  };
}

/** Keeps every completion in the folder of what was begun, and goes on with those that are there. */
async function loggedSamples(
  partial: PartialWork,
  loaded: LoadedModel,
  rows: readonly PromptIds[],
  flags: GenerateFlags,
  plan: SamplePlan,
): ReturnType<typeof samplePrompts> {
  const earlier: Sampled[] = [];
  const log = await RowLog.open<Sampled>(partial.folder, "completions", {
    place: ({ request, sample }) => request * flags.n + sample,
    onEarlier: (completion) => earlier.push(completion),
  });
  if (earlier.length > 0) plan.context.progress.note(`Going on behind ${earlier.length} completions made before.`);
  try {
    const onCompletion = (completion: Sampled) => log.add(completion);
    return await samplePrompts(loaded, rows, flags, { ...plan, earlier, onCompletion, signal: partial.signal });
  } finally {
    await log.close();
  }
}

/** @throws TemporaError unless there is one source of prompts, and a place for the answers. */
function checkSource({ data, prompt, out }: GenerateFlags): void {
  const remedy = "Give --data and --out for files, or --prompt for answers on the terminal.";
  if (data === undefined && prompt.length === 0) throw new TemporaError("There is no prompt", { remedy });
  if (data !== undefined && prompt.length > 0)
    throw new TemporaError("--data and --prompt exclude each other", { remedy });
  if (data !== undefined && out === undefined) throw new TemporaError("The option --out <file> is missing", { remedy });
}

/** The answers as text; where there are several, under their prompts. */
function printed(rows: readonly PromptIds[], completions: readonly Sampled[][]): string {
  const answers = completions.map((list) => list.map(({ text }) => text).join("\n---\n"));
  if (rows.length === 1) return answers[0] as string;
  return rows.map(({ source }, i) => `> ${shownText(source.value.prompt as Conversation)}\n${answers[i]}`).join("\n\n");
}

/** What the flags add to a prompt, so that whoever reads the row next sees the prompt that was asked. */
function promptColumns({ asked }: PromptIds, { system, variables }: RenderOptions): Record<string, unknown> {
  if (asked === null) return {};
  const prompt = system === undefined ? {} : { prompt: asked.prompt };
  return { ...prompt, ...(variables === undefined ? {} : templateColumns(asked.variables)) };
}

function column(
  completion: Sampled,
  row: PromptIds,
  { tokenizer, endTokens }: LoadedModel,
  { now }: RenderOptions,
): CompletionColumn {
  const { text, ids, logProbs, finishReason } = completion;
  const ended = endTokens.includes(ids.at(-1) ?? -1);
  const answer = { promptIds: row.promptIds, ids, text, ended };
  const same = row.asked === null || textGivesIds(row.asked, answer, tokenizer, now);
  return { text, ids, logprobs: logProbs, finish_reason: finishReason, ...(same ? {} : { text_differs: true }) };
}
