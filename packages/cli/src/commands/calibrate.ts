import { createHash } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { judgeTemplates, type WinRate } from "@tempora/preferences";
import { type Calibration, CalibrationRows, knownPairs, verdictsOf } from "@tempora/run";
import { readAllRows, writeJson } from "@tempora/text";
import type { Context } from "../context.ts";
import { JudgingModel, judgeOf, judgeSettings } from "../judging.ts";
import { claimFile } from "../output.ts";
import { PartialWork } from "../partial-work.ts";
import type { JudgeCommandFlags } from "./judge.ts";

interface Measured extends Calibration {
  /** Share of the probability that lies on the template's answers; null for a judge that speaks. */
  mass: number | null;
}

/** Measures a judge on rows whose order is known, one template after the other. */
export async function calibrate(flags: JudgeCommandFlags, context: Context): Promise<void> {
  const out = flags.out === undefined ? null : await claimFile("--out", flags.out, [flags.data]);
  const sources = await readAllRows(flags.data, { columns: flags.columns });
  const rows = new CalibrationRows(sources.flatMap((source) => knownPairs(source, source.file ?? flags.data)));
  const work = out === null ? await mkdtemp(join(tmpdir(), "tempora-calibrate-")) : `${out}.work`;
  context.onStopped(
    out === null
      ? "Nothing was kept; with --out the same command goes on."
      : "Judgements made so far are kept: run the same command again to go on.",
  );
  using model = new JudgingModel(flags, context);
  const settings = await judgeSettings(flags);
  const { limits } = settings;
  const measured: Record<string, Measured> = {};
  for (const template of templatesOf(flags)) {
    const judge = await judgeOf(settings, flags, model, template);
    const name = template ?? judge.name;
    const folder = join(work, createHash("sha256").update(name).digest("hex").slice(0, 16));
    await using partial = await PartialWork.open(folder, context);
    const date = await model.date(judge);
    const judged = await partial.judge(judge, rows.responses, { ...flags, limits, date, label: name });
    const { scores, audit } = await verdictsOf(judge, rows.responses, partial.folder, judged.rows, flags.aggregation);
    measured[name] = { ...rows.measure(scores), mass: audit.mass };
  }
  const result = { judge: flags.judge, model: flags.model ?? null, templates: measured };
  if (out !== null) await writeJson(out, result);
  await rm(work, { recursive: true, force: true });
  context.result(result, calibrationTable(measured));
}

/** Those that are named; else every one that is made for the kind; a function has none. */
function templatesOf(flags: JudgeCommandFlags): (string | undefined)[] {
  if (flags.judge === "function") return [undefined];
  if (flags.template !== undefined) return flags.template.split(",").map((name) => name.trim());
  const expects = flags.judge === "expected";
  return judgeTemplates
    .filter(({ answers, answerPrefix }) => expects === (answers !== undefined || answerPrefix !== undefined))
    .map(({ name }) => name);
}

function calibrationTable(measured: Readonly<Record<string, Measured>>): string {
  const cells = Object.entries(measured).map(([name, calibration]) => [
    name,
    share(calibration.ranked),
    share(calibration.betterAboveOther),
    share(calibration.worseAboveOther),
    `${calibration.rows}`,
    `${calibration.unscored}`,
    calibration.mass === null ? "–" : calibration.mass.toFixed(2),
  ]);
  const header = [
    "template",
    "better above worse",
    "better above other's",
    "worse above other's",
    "rows",
    "no score",
    "mass",
  ];
  const widths = header.map((title, column) => Math.max(title.length, ...cells.map((row) => row[column]?.length ?? 0)));
  const line = (row: readonly string[]) =>
    row
      .map((cell, column) => (column === 0 ? cell.padEnd(widths[0] ?? 0) : cell.padStart(widths[column] ?? 0)))
      .join("  ");
  return [
    line(header),
    ...cells.map(line),
    "",
    "Shares with their 95 % intervals; a tie counts half, 0.50 is chance. \"Other's\": the answer to another prompt.\nMass: the probability that lies on the template's answers.",
  ].join("\n");
}

function share({ rate, low, high }: WinRate): string {
  const ends = low === null || high === null ? "" : ` [${low.toFixed(2)}, ${high.toFixed(2)}]`;
  return `${rate.toFixed(2)}${ends}`;
}
