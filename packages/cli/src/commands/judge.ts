import { canonical, type Json, TemporaError } from "@tempora/errors";
import { collapsed } from "@tempora/preferences";
import {
  type Judge,
  type JudgementColumns,
  judgementColumns,
  paperSettings,
  type Response,
  readJudgements,
  verdictsOf,
} from "@tempora/run";
import { ContextFit, TooLongError, writeJsonl } from "@tempora/text";
import { type Command, Option } from "commander";
import { addAdapterOption } from "../adapter.ts";
import type { Context } from "../context.ts";
import { gradedRows } from "../graded-rows.ts";
import { type CompletionsRow, readCompletions } from "../judged.ts";
import { type JudgeFlags, JudgingModel, judgeOf, judgeSettings } from "../judging.ts";
import { modelHelp } from "../model.ts";
import {
  addCacheOptions,
  addColumnsOption,
  addEngineOptions,
  addSamplingOptions,
  type ColumnFlags,
  judgeOption,
  maxTokensOption,
  newCommand,
  whenCalled,
  wholeNumber,
} from "../options.ts";
import { claimFile } from "../output.ts";
import { PartialWork } from "../partial-work.ts";
import { addSkipOption, addTemplateOptions } from "../text-flags.ts";
import { calibrate } from "./calibrate.ts";

export interface JudgeCommandFlags extends JudgeFlags, ColumnFlags {
  data: string;
  out?: string;
  graded?: string;
  calibrate: boolean;
}

export function judgeCommand(context: Context): Command {
  const { judge } = paperSettings;
  const command = newCommand("judge", "Grade completions by a model, a function of your own or a server", [
    "judge --model models/M1 --data candidates.jsonl --out judged.jsonl --judgements 3",
    "judge --model models/M1 --data candidates.jsonl --out judged.jsonl --judge expected",
    "judge --judge function --config tempora.config.ts --data candidates.jsonl --out judged.jsonl",
    "judge --judge endpoint --endpoint http://localhost:8000/v1 --endpoint-model qwen --data c.jsonl --out judged.jsonl",
    "judge --model models/M1 --judge expected --calibrate --data alpaca_eval.jsonl --columns better=gpt4,worse=davinci",
  ])
    .option("--model <model>", modelHelp)
    .requiredOption("--data <file>", "completions, as `tempora generate` writes them")
    .option("--out <file>", "the rows with a score and the judgements added to every completion")
    .addOption(judgeOption().default("sampled"))
    .option(
      "--template <names>",
      "the judge's question: a JSON file {name, text, maxScore, answers?} or the name of one",
    )
    .option("--judgements <count>", "judgements averaged for each completion", wholeNumber(1), judge.judgements)
    .option("--retries <count>", "how often one that does not parse is sampled again", wholeNumber(0), judge.retries)
    .addOption(new Option("--aggregation <how>", "of the judgements").choices(["mean", "median"]).default("mean"))
    .option("--config <file>", "configuration whose judge.functions, judge.endpoint and judge.limits serve")
    .option("--endpoint <url>", "OpenAI-compatible server, as http://localhost:8000/v1")
    .option("--endpoint-model <name>", "the server's name of the model that judges")
    .option("--graded <file>", "also the judgements as rows that teach a model to judge (EFT), for `tempora sft`")
    .option("--calibrate", "measure the judge on rows {prompt, better, worse} instead, template by template", false)
    .addOption(maxTokensOption());
  addSkipOption(addTemplateOptions(command), "answers whose judgement has no room in the context");
  addSamplingOptions(command, { ...judge.sampling, seed: 0 });
  addAdapterOption(addColumnsOption(command));
  return whenCalled(addCacheOptions(addEngineOptions(command)), context, judgeCompletions);
}

async function judgeCompletions(flags: JudgeCommandFlags, context: Context): Promise<void> {
  if (flags.calibrate) return calibrate(flags, context);
  const { out: file } = flags;
  if (file === undefined) {
    throw new TemporaError("The option --out <file> is missing", { remedy: "See `tempora judge --help`." });
  }
  context.onStopped("Judgements made so far are kept: run the same command again to go on.");
  const out = await claimFile("--out", file, [flags.data]);
  const gradedFile = flags.graded === undefined ? null : await claimFile("--graded", flags.graded, [flags.data]);
  const rows = await readCompletions(flags.data, flags.columns);
  using model = new JudgingModel(flags, context);
  const settings = await judgeSettings(flags);
  const judge = await judgeOf(settings, flags, model, flags.template);
  if (gradedFile !== null && judge.question === null) {
    throw new TemporaError("A judge that says nothing teaches nothing", {
      where: { field: "--graded" },
      remedy: "Judge in words: --judge sampled, or --judge endpoint.",
    });
  }
  const responses = new DistinctResponses(judge, rows, flags);
  const fit = new ContextFit(flags.skipTooLong);
  await responses.leaveOutTooLong(judge, model, fit);
  const summary = fit.summary("answers");
  if (summary !== null) context.progress.note(`warning: ${summary}.`);
  await using partial = await PartialWork.open(`${out}.work`, context);
  const { limits } = settings;
  const judged = await partial.judge(judge, responses.list, { ...flags, limits, date: await model.date(judge) });
  const verdicts = await verdictsOf(judge, responses.list, partial.folder, judged.rows, flags.aggregation);
  const { scores, audit, noRoom } = verdicts;
  if (noRoom !== null) context.progress.note(`warning: ${noRoom}`);
  const judgements: JudgementColumns[][] = responses.list.map(() => []);
  for await (const one of readJudgements(partial.folder, judged.rows)) {
    judgements[one.response]?.push(judgementColumns(one));
  }
  await writeJsonl(
    out,
    rows.map((row) => {
      const columns = row.source.value.completions as object[];
      const completions = row.completions.map(({ text }, index) => {
        const response = responses.indexOf(row, text);
        if (response === null) return { ...columns[index], score: null, judgements: [] };
        return { ...columns[index], score: scores[response] ?? null, judgements: judgements[response] };
      });
      return { ...row.source.value, completions };
    }),
  );
  if (gradedFile !== null) await writeJsonl(gradedFile, gradedRows(judge, responses.list, judgements, scores));
  await partial.done();
  const collapse = collapsed(audit, limits);
  if (collapse !== null) context.progress.note(`warning: ${collapse.counts}. ${collapse.remedy}`);
  const completions = rows.reduce((sum, row) => sum + row.completions.length, 0);
  context.result(
    { out: file, rows: rows.length, completions, skipped: fit.skipped, audit, cost: judged.totals },
    `${completions} completions judged, mean score ${audit.mean?.toFixed(2) ?? "–"}, ${audit.failures} of ${audit.judgements} judgements without a score: ${file}`,
  );
}

/** Equal completions of equal prompts are judged once. */
class DistinctResponses {
  readonly list: Response[] = [];
  readonly #indices = new Map<string, number | null>();
  readonly #readsColumns: boolean;

  constructor(judge: Judge, rows: readonly CompletionsRow[], { data, chatTemplateKwargs }: JudgeCommandFlags) {
    this.#readsColumns = judge.readsColumns;
    for (const row of rows) {
      for (const [index, { text }] of row.completions.entries()) {
        const key = this.#key(row, text);
        if (this.#indices.has(key)) continue;
        const { prompt, promptText, columns } = row;
        const variables = { ...chatTemplateKwargs, ...row.variables };
        const where = { file: data, row: row.row, field: `completions[${index}]` };
        const response = { promptId: promptText, prompt, promptText, text, variables, columns, where };
        this.#indices.set(key, this.list.push(response) - 1);
      }
    }
  }

  /** Before anything is judged. @throws TooLongError for the first one, unless such are to be left out. */
  async leaveOutTooLong(judge: Judge, model: JudgingModel, fit: ContextFit): Promise<void> {
    if (judge.contextOf === undefined) return;
    const { checkpoint, tokenizer: load } = await model.open();
    const { maxPositions } = checkpoint.config;
    const tokenizer = await load();
    const kept = new Map<number, number>();
    const list = this.list.filter((response, index) => {
      const need = judge.contextOf?.(response, tokenizer) ?? 0;
      const fits = fit.keep(() => requireRoom(need, maxPositions, response)) !== null;
      if (fits) kept.set(index, kept.size);
      return fits;
    });
    fit.requireSome(list.length);
    this.list.splice(0, this.list.length, ...list);
    for (const [key, index] of this.#indices) this.#indices.set(key, kept.get(index ?? -1) ?? null);
  }

  /** null: the response was left out. */
  indexOf(row: CompletionsRow, text: string): number | null {
    return this.#indices.get(this.#key(row, text)) ?? null;
  }

  #key({ promptText, variables, columns }: CompletionsRow, text: string): string {
    return canonical([promptText, text, variables, this.#readsColumns ? columns : null] as Json);
  }
}

function requireRoom(need: number, context: number, { where = {} }: Response): true {
  if (need <= context) return true;
  throw new TooLongError(`Question, answer and judgement take ${need} tokens, more than the context of ${context}`, {
    where,
    remedy: "Lower --max-new-tokens, leave such answers unscored (--skip-too-long), or take another judge.",
  });
}
