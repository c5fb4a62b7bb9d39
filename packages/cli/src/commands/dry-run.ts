import { leftOutNotes } from "@tempora/report";
import { type DryRun, dryRun, type ParsedConfig } from "@tempora/run";
import type { Context } from "../context.ts";
import { formatBytes, formatCount, formatDuration } from "../format.ts";
import { describeMemory } from "../memory-check.ts";
import { runObserver } from "../observer.ts";

/** `train --dry-run`: what the run would take. Run folder and store are left alone. */
export async function printDryRun({ settings, runs }: ParsedConfig, seeds: number, context: Context): Promise<void> {
  const observer = runObserver(context.progress);
  const { signal } = context;
  const estimate = await dryRun({ settings, runs, observer, signal });
  const text = describe(estimate, seeds);
  const { leftOut } = estimate;
  const result = { dryRun: true, seeds, ...estimate };
  context.result(result, leftOut === null ? text : `${text}\n\n${leftOutNotes({ leftOut }).join("\n")}`);
}

function describe(estimate: DryRun, seeds: number): string {
  const { memory, disk, speed } = estimate;
  const largest = Math.max(memory.training.total, memory.generation.total);
  const free = disk.free === null ? "" : `; ${formatBytes(disk.free)} free`;
  const lines = [
    ...table(estimate),
    "",
    `time      at most ${formatDuration(estimate.seconds)}${seeds > 1 ? `, ${seeds} times: ${formatDuration(seeds * estimate.seconds)}` : ""} (measured in ${formatDuration(speed.seconds)})`,
    `training  ${describeMemory(memory.training)}`,
    `answers   ${describeMemory(memory.generation)}`,
    `machine   ${formatBytes(memory.available)} of memory${largest > memory.available ? ": too little for this run" : ""}`,
    `disk      ${formatBytes(seeds * disk.total)}: ${estimate.models} models ${formatBytes(disk.models)}, a training's state ${formatBytes(disk.state)}, rows ${formatBytes(disk.rows)}${seeds > 1 ? " a seed" : ""}${free}`,
    "",
    "Taken for granted:",
    ...estimate.assumptions.map((text) => `  ${text}`),
  ];
  return lines.join("\n");
}

function table({ stages, iterations }: DryRun): string[] {
  const header = ["strategy", "iterations", "stage", "read", "generated", "trained", "TFLOP", "time"];
  const rows = stages.map(({ strategy, kind, totals, seconds }) => [
    strategy ?? "all",
    `${iterations.find((one) => one.strategy === strategy)?.count ?? ""}`,
    kind,
    formatCount(totals.promptTokens + totals.scoredTokens),
    formatCount(totals.generatedTokens + totals.judgedTokens),
    formatCount(totals.trainedTokens),
    formatCount(totals.flops / 1e12),
    formatDuration(seconds),
  ]);
  const widths = header.map((name, k) => Math.max(name.length, ...rows.map((row) => (row[k] as string).length)));
  return [header, ...rows].map((row) =>
    row.map((cell, k) => (k < 3 ? cell.padEnd(widths[k] as number) : cell.padStart(widths[k] as number))).join("  "),
  );
}
