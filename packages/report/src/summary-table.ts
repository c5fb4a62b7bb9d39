import type { RunResult, StudyResult } from "@tempora/run";
import {
  bestModels,
  countText,
  estimateText,
  gapSources,
  heldOutTitle,
  leftOutNotes,
  type ModelSummary,
  modelSummaries,
  numberText,
  pairNotes,
  percentText,
  shareText,
} from "./numbers.ts";

/** The end of a run, for a terminal: M0, then every strategy's models. */
export function summaryTable(result: RunResult): string {
  const header = [
    "",
    heldOutTitle(result),
    "win rate vs M0",
    "length-controlled",
    "score gap",
    "cosine",
    "pairs",
    "cut off",
    "tokens",
    "FLOPs",
    "judge ρ",
    "own ρ",
  ];
  const rows: string[][] = [];
  const start = result.strategies[0];
  const first = start === undefined ? undefined : modelSummaries(start)[0];
  if (first !== undefined) rows.push(cells(first.model, first));
  for (const strategy of result.strategies) {
    rows.push([strategy.name]);
    for (const summary of modelSummaries(strategy).slice(1)) rows.push(cells(`  ${summary.model}`, summary));
  }
  const ended = result.strategies.flatMap(({ name, stopped }) =>
    stopped === undefined ? [] : [`${name} ended early: ${stopped}`],
  );
  const gap = gapSources(result);
  const notes = [bestModels(result), ...(gap === "" ? [] : [`The score gap of the pairs is measured by ${gap}.`])];
  return [table(header, rows), ...leftOutNotes(result), ...pairNotes(result), ...ended, ...notes].join("\n");
}

function cells(name: string, summary: ModelSummary): string[] {
  return [
    name,
    estimateText(summary.heldOutScore),
    shareText(summary.winRate),
    shareText(summary.lengthControlledWinRate),
    estimateText(summary.scoreGap),
    numberText(summary.cosine?.mean, 3),
    summary.pairs === null ? "–" : `${summary.pairs}`,
    percentText(summary.cutOff),
    summary.tokens === 0 ? "–" : countText(summary.tokens),
    summary.flops === 0 ? "–" : countText(summary.flops),
    numberText(summary.spearman),
    numberText(summary.spearmanOwn),
  ];
}

/** Means over seeds with their 95 % intervals. */
export function studyTable(study: StudyResult): string {
  const measures = [...new Set(study.rows.map((row) => row.measure))];
  const names = [...new Set(study.rows.map((row) => `${row.strategy} ${row.model}`))];
  const rows = names.map((name) => [
    name,
    ...measures.map((measure) => {
      const row = study.rows.find((one) => one.measure === measure && `${one.strategy} ${one.model}` === name);
      if (row === undefined) return "–";
      if (measure === "flops") return countText(row.estimate.mean);
      return measure === "win rate"
        ? shareText(row.estimate)
        : estimateText(row.estimate, measure === "cosine" ? 3 : 2);
    }),
  ]);
  return `Means over seeds ${study.seeds.join(", ")} with 95 % intervals\n${table(["", ...measures], rows)}`;
}

function table(header: readonly string[], rows: readonly string[][]): string {
  const widths = header.map((name, column) => Math.max(name.length, ...rows.map((row) => (row[column] ?? "").length)));
  const line = (row: readonly string[]) =>
    row
      .map((cell, column) =>
        column === 0 ? cell.padEnd(widths[0] as number) : cell.padStart(widths[column] as number),
      )
      .join("  ")
      .trimEnd();
  const rule = "─".repeat(widths.reduce((sum, width) => sum + width + 2, -2));
  return [line(header), rule, ...rows.map(line)].join("\n");
}
