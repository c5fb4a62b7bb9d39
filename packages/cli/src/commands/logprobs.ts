import type { Engine } from "@tempora/engine";
import { writeJsonl } from "@tempora/text";
import { type ScoredCompletion, scoreRows } from "@tempora/training";
import type { Command } from "commander";
import { type AdapterFlags, addAdapterOption } from "../adapter.ts";
import type { Context } from "../context.ts";
import { loadEngine, modelHelp, openModel } from "../model.ts";
import {
  addColumnsOption,
  addEngineOptions,
  type ColumnFlags,
  type EngineFlags,
  maxTokensOption,
  newCommand,
  whenCalled,
} from "../options.ts";
import { claimFile } from "../output.ts";
import { RowReader, type TokenizedRow } from "../rows.ts";
import { addSkipOption, addTextOptions, renderOptions, type SkipFlags, type TextFlags } from "../text-flags.ts";

interface LogProbsFlags extends AdapterFlags, ColumnFlags, EngineFlags, TextFlags, SkipFlags {
  model: string;
  data: string;
  out: string;
  maxTokens: number;
}

/** Rows scored between two writes. */
const chunkRows = 1024;

export function logProbsCommand(context: Context): Command {
  const command = newCommand("logprobs", "Log-prob of every completion token of every row under a model", [
    "logprobs --model models/M0 --data pairs.jsonl --out logprobs.jsonl",
  ])
    .requiredOption("--model <model>", modelHelp)
    .requiredOption("--data <file>", "rows with prompt and chosen + rejected, or prompt and completion; or their _ids")
    .requiredOption("--out <file>", "the rows with <side>_logprobs and <side>_sum added")
    .addOption(maxTokensOption());
  addSkipOption(addTextOptions(command), "rows that are longer than the context");
  addAdapterOption(command);
  return whenCalled(addColumnsOption(addEngineOptions(command)), context, logProbs);
}

async function logProbs(flags: LogProbsFlags, context: Context): Promise<void> {
  context.onStopped("Nothing was written: run the same command again.");
  const out = await claimFile("--out", flags.out, [flags.data]);
  const model = await openModel(flags.model, context);
  const reader = new RowReader(model, context, {
    render: renderOptions(flags),
    skipTooLong: flags.skipTooLong,
    columns: flags.columns,
  });
  const rows = await reader.any(flags.data);
  using engine = await loadEngine(model, flags, context);
  const stage = context.progress.stage("logprobs", rows.length, "rows");
  let tokens = 0;
  await writeJsonl(
    out,
    scoredRows(rows, engine, flags, context, (done, added) => {
      stage.update(done);
      tokens += added;
    }),
  );
  stage.finish();
  context.result(
    { out, rows: rows.length, skipped: reader.skipped, tokens, dtype: engine.dtype, device: engine.device },
    `${rows.length} rows with the log-probs of ${tokens} tokens: ${flags.out}`,
  );
}

/** The rows with their log-probs, a chunk computed at a time. */
async function* scoredRows(
  rows: readonly TokenizedRow[],
  engine: Engine,
  flags: LogProbsFlags,
  context: Context,
  onProgress: (done: number, tokens: number) => void,
): AsyncGenerator<Record<string, unknown>> {
  for (let start = 0; start < rows.length; start += chunkRows) {
    const chunk = rows.slice(start, start + chunkRows);
    const scored = await scoreRows(engine, chunk.map(toPackItem), {
      maxTokens: flags.maxTokens,
      signal: context.signal,
      onProgress: (done) => onProgress(start + done, 0),
    });
    for (const [index, row] of chunk.entries()) {
      const completions = scored[index] as ScoredCompletion[];
      onProgress(
        start + index + 1,
        completions.reduce((sum, { tokens }) => sum + tokens.length, 0),
      );
      yield {
        ...row.source.value,
        ...Object.fromEntries(row.sides.flatMap((side, i) => columns(side.name, completions[i]!))),
      };
    }
  }
}

function columns(side: string, { tokens, sum }: ScoredCompletion): [string, unknown][] {
  return [
    [`${side}_logprobs`, tokens],
    [`${side}_sum`, sum],
  ];
}

function toPackItem(row: TokenizedRow) {
  return { promptIds: row.promptIds, completions: row.sides.map((side) => side.ids), where: row.where };
}
