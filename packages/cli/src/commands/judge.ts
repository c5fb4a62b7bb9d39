import { readFile } from "node:fs/promises";
import { fileError, TemporaError } from "@tempora/errors";
import {
  type Aggregation,
  aggregate,
  auditJudgements,
  checkJudgeTemplate,
  collapsed,
  defaultJudgeTemplate,
  type JudgementAudit,
  type JudgeTemplate,
  judgePrompt,
  parseScore,
  type ScoreFailure,
} from "@tempora/preferences";
import { ownPromptIds, paperSettings, type SamplingRequest, sample, shownText, storedTemplate } from "@tempora/run";
import { writeJsonl } from "@tempora/text";
import { type Command, Option } from "commander";
import type { Context } from "../context.ts";
import { type CompletionsRow, readCompletions } from "../judged.ts";
import { loadEngine, modelHelp, type OpenModel, openModel } from "../model.ts";
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

interface JudgeFlags extends EngineFlags, SamplingFlags, CacheFlags {
  model: string;
  data: string;
  out: string;
  samples: number;
  retries: number;
  aggregation: Aggregation;
  template?: string;
}

/** A judgement as the output holds it. */
interface JudgementColumn {
  text: string;
  score: number | null;
  failure: ScoreFailure | null;
  attempt: number;
}

/** A response of one prompt; equal responses to equal prompts are judged once. */
interface Response {
  promptText: string;
  text: string;
  judgements: JudgementColumn[];
}

export function judgeCommand(context: Context): Command {
  const { judge } = paperSettings;
  const command = newCommand("judge", "Let a model grade completions, several judgements each", [
    "judge --model models/M1 --data candidates.jsonl --out judged.jsonl --samples 3",
  ])
    .requiredOption("--model <model>", modelHelp)
    .requiredOption("--data <file>", "completions, as `tempora generate` writes them")
    .requiredOption("--out <file>", "the rows with a score and the judgements added to every completion")
    .option("--samples <count>", "judgements averaged for each completion", whole(1), judge.judgements)
    .option("--retries <count>", "how often one that does not parse is sampled again", whole(0), judge.retries)
    .addOption(new Option("--aggregation <how>", "of the judgements").choices(["mean", "median"]).default("mean"))
    .option("--template <file>", "JSON {name, text, maxScore} (default: the model's own, else the five-point rubric)");
  addSamplingOptions(command, { ...judge.sampling, seed: 0 });
  return whenCalled(addCacheOptions(addEngineOptions(command)), context, judgeCompletions);
}

async function judgeCompletions(flags: JudgeFlags, context: Context): Promise<void> {
  context.onStopped("Nothing was written: run the same command again.");
  const out = await claimFile("--out", flags.out, [flags.data]);
  const model = await openModel(flags.model, context);
  const template = await judgeTemplate(flags, model);
  const rows = await readCompletions(flags.data);
  const responses = uniqueResponses(rows);
  await sampleJudgements([...responses.values()], template, model, flags, context);
  await writeJsonl(
    out,
    rows.map((row) => judgedColumns(row, responses, flags.aggregation)),
  );
  const audit = auditOf(rows, responses, template.maxScore);
  const collapse = collapsed(audit);
  if (collapse?.reason === "unparsed") {
    throw new TemporaError(`The judge is of no use here: ${collapse.counts}`, {
      where: { file: flags.out },
      remedy: collapse.remedy,
    });
  }
  if (collapse !== null) context.progress.note(`warning: ${collapse.counts}. ${collapse.remedy}`);
  const completions = rows.reduce((sum, row) => sum + row.completions.length, 0);
  context.result(
    { out, rows: rows.length, completions, audit },
    `${completions} completions judged, mean score ${audit.mean?.toFixed(2) ?? "–"}, ${audit.failures} of ${audit.judgements} judgements without a score: ${flags.out}`,
  );
}

async function judgeTemplate(flags: JudgeFlags, model: OpenModel): Promise<JudgeTemplate> {
  if (flags.template === undefined) return (await storedTemplate(model.checkpoint.folder)) ?? defaultJudgeTemplate;
  let value: unknown;
  try {
    value = JSON.parse(await readFile(flags.template, "utf8"));
  } catch (cause) {
    if (!(cause instanceof SyntaxError)) throw fileError(cause, "Cannot read the judge's template", flags.template);
  }
  const { name, text, maxScore } = (typeof value === "object" && value !== null ? value : {}) as Record<
    string,
    unknown
  >;
  if (typeof name !== "string" || typeof text !== "string" || typeof maxScore !== "number") {
    throw new TemporaError("The judge's template is not { name, text, maxScore }", {
      where: { file: flags.template },
      remedy: "Write its name, its text with {prompt} and {response}, and its highest score as JSON.",
    });
  }
  const template = { name, text, maxScore };
  checkJudgeTemplate(template);
  return template;
}

function responseKey(row: CompletionsRow, text: string): string {
  return JSON.stringify([shownText(row.prompt), text]);
}

function uniqueResponses(rows: readonly CompletionsRow[]): Map<string, Response> {
  const responses = new Map<string, Response>();
  for (const row of rows) {
    for (const { text } of row.completions) {
      const key = responseKey(row, text);
      if (!responses.has(key)) responses.set(key, { promptText: shownText(row.prompt), text, judgements: [] });
    }
  }
  return responses;
}

async function sampleJudgements(
  responses: readonly Response[],
  template: JudgeTemplate,
  model: OpenModel,
  flags: JudgeFlags,
  context: Context,
): Promise<void> {
  const tokenizer = await model.tokenizer();
  using engine = await loadEngine(model, flags, context);
  const ends = await model.endTokens();
  const loaded = { engine, checkpoint: model.checkpoint, tokenizer, endTokens: ends };
  const prompts = responses.map(({ promptText, text }) =>
    ownPromptIds(judgePrompt(template, promptText, text), tokenizer, model.checkpoint.config.maxPositions),
  );
  const stage = context.progress.stage("judge", responses.length * flags.samples, "judgements");
  let parsed = 0;
  for (let attempt = 0; attempt <= flags.retries; attempt++) {
    const asked: Response[] = [];
    const requests: SamplingRequest[] = [];
    responses.forEach((response, index) => {
      const samples = flags.samples - response.judgements.filter(({ score }) => score !== null).length;
      const ids = prompts[index] ?? null;
      if (samples === 0) return;
      if (ids === null) {
        // The judge's prompt fills the context: no judgement of it can be finished.
        if (attempt === 0) response.judgements.push({ text: "", score: null, failure: "cut-off", attempt });
        return;
      }
      asked.push(response);
      requests.push({ key: JSON.stringify([response.promptText, response.text, attempt]), ids, samples });
    });
    const found: { request: number; sample: number; judgement: JudgementColumn }[] = [];
    const sampled = sample(loaded, requests, {
      sampling: { ...flags },
      limits: { ...flags },
      seed: flags.seed,
      signal: context.signal,
    });
    for await (const { request, sample: number, text, finishReason } of sampled) {
      const score = parseScore(text, { max: template.maxScore, finished: finishReason === "stop" });
      const verdict =
        "score" in score ? { score: score.score, failure: null } : { score: null, failure: score.failure };
      found.push({ request, sample: number, judgement: { text, ...verdict, attempt } });
      if (verdict.score !== null) stage.update(++parsed);
    }
    // In the order of the samples, whatever order they ended in.
    found.sort((a, b) => a.request - b.request || a.sample - b.sample);
    for (const { request, judgement } of found) asked[request]!.judgements.push(judgement);
  }
  stage.finish();
}

function judgedColumns(row: CompletionsRow, responses: ReadonlyMap<string, Response>, how: Aggregation): object {
  const columns = row.source.value.completions as object[];
  const completions = row.completions.map(({ text }, index) => {
    const { judgements } = responses.get(responseKey(row, text)) as Response;
    const score = aggregate(
      judgements.map((judgement) => judgement.score),
      how,
    );
    return { ...columns[index], score, judgements };
  });
  return { ...row.source.value, completions };
}

function auditOf(
  rows: readonly CompletionsRow[],
  responses: ReadonlyMap<string, Response>,
  maxScore: number,
): JudgementAudit {
  const seen = new Set<string>();
  const all = rows.flatMap((row) =>
    row.completions.flatMap(({ text }) => {
      const key = responseKey(row, text);
      if (seen.has(key)) return [];
      seen.add(key);
      const { judgements, promptText } = responses.get(key) as Response;
      return judgements.map(({ score, failure }) => ({
        prompt: promptText,
        response: text,
        score,
        ...(failure === null ? {} : { failure }),
      }));
    }),
  );
  return auditJudgements(all, maxScore);
}
