import { isObject } from "@tempora/errors";
import { interval95, pairedDifference } from "@tempora/preferences";
import type { AnswerRow, Estimate, RunResult, StrategyResult } from "@tempora/run";
import { shownText } from "@tempora/text";
import { escapeHtml, tableHtml } from "./html.ts";
import { estimateText, heldOutTitle, numberText } from "./numbers.ts";
import type { Run } from "./run-folder.ts";

/** The first held-out prompts: of a split that is the order of their hashes, so no choice of anybody's, and all runs' same. */
const shownPrompts = 20;

/** What of an answer is counted; null where it has no such value. */
export type Measure = (row: AnswerRow) => number | null;

/** Words are runs of letters and digits, whatever their case. */
export const distinctWords: Measure = ({ text }) => new Set(text.toLowerCase().match(/[\p{L}\p{N}]+/gu)).size;

/** Mean over a model's held-out answers with its 95 % interval; null where there is no value. */
export function answerMeasure(run: Run, strategy: string, model: string, measure: Measure): Estimate | null {
  const values = rowsOf(run, strategy, model).map(measure);
  const known = values.filter((value): value is number => value !== null);
  return known.length === 0 ? null : interval95(known);
}

/** How a measure of the held-out answers went from M0 to a later model. */
export interface Change {
  measure: string;
  first: Estimate;
  later: Estimate;
  /** later − first on the same prompts: paired, since the prompts differ more than the models do. */
  difference: Estimate;
  /** "within its interval", "up by 3.2 intervals". */
  verdict: string;
}

/** Of the score, the judge's parts, length and what the judge may not see, between two models of one strategy. */
export function changesOf(run: Run, strategy: string, first: string, later: string): Change[] {
  const [before, after] = [rowsOf(run, strategy, first), rowsOf(run, strategy, later)];
  return measuresOf(run.result, after).flatMap(([measure, value]) => {
    const both = before.flatMap((row, k) => {
      const [one, other] = [value(row), after[k] === undefined ? null : value(after[k])];
      return one === null || other === null ? [] : [[one, other] as const];
    });
    if (both.length === 0) return [];
    const [ones, others] = [both.map(([one]) => one), both.map(([, other]) => other)];
    const difference = pairedDifference(others, ones);
    return [
      { measure, first: interval95(ones), later: interval95(others), difference, verdict: verdictOf(difference) },
    ];
  });
}

/** The score, the changes and the answers of M0 beside each strategy's best and last model, as HTML. */
export function answersHtml(run: Run): string {
  const models = shownModels(run);
  const prompts = (models[0]?.rows ?? []).slice(0, shownPrompts);
  if (prompts.length === 0) return `<p class="note">No held-out answers yet.</p>`;
  const cards = prompts.map((prompt) => promptHtml(run.result, models, prompt));
  return `${changesHtml(run)}<p class="note" style="margin-bottom:16px">The first ${prompts.length} held-out prompts, the same for all models. All answers are in the run's folder, in evaluation/.</p>${cards.join("")}`;
}

interface ShownModel {
  /** "temporal M4 (best and last)" */
  label: string;
  rows: readonly AnswerRow[];
}

/** M0, then of each strategy its best and its last model. M0 comes again only with runs whose M0 is another. */
function shownModels(run: Run): ShownModel[] {
  const shown: ShownModel[] = [];
  for (const strategy of run.result.strategies) {
    const [first] = strategy.models;
    if (first === undefined) continue;
    const rows = rowsOf(run, strategy.name, first.model);
    if (shown.length === 0) shown.push({ label: first.model, rows });
    else if (!sameAnswers(rows, shown[0]?.rows ?? [])) shown.push({ label: `${strategy.name} ${first.model}`, rows });
    for (const { model, role } of laterModels(strategy)) {
      shown.push({ label: `${strategy.name} ${model} (${role})`, rows: rowsOf(run, strategy.name, model) });
    }
  }
  return shown;
}

function sameAnswers(rows: readonly AnswerRow[], others: readonly AnswerRow[]): boolean {
  const same = (row: AnswerRow, k: number) => row.prompt_id === others[k]?.prompt_id && row.text === others[k].text;
  return rows.length === others.length && rows.every(same);
}

/** The best and the last one, which may be one; M0 is neither. */
function laterModels({ models, best }: StrategyResult): { model: string; role: string }[] {
  const later = models.slice(1);
  const last = later.at(-1);
  if (last === undefined) return [];
  if (last.model === best) return [{ model: best, role: "best and last" }];
  const others = later.filter(({ model }) => model === best).map(({ model }) => ({ model, role: "best" }));
  return [...others, { model: last.model, role: "last" }];
}

function rowsOf({ answers }: Run, strategy: string, model: string): readonly AnswerRow[] {
  return answers.find((own) => own.strategy === strategy && own.model === model)?.rows ?? [];
}

const scoreOf: Measure = (row) => row.true_score ?? row.judged_score;

function measuresOf(result: RunResult, rows: readonly AnswerRow[]): [name: string, measure: Measure][] {
  const parts = [...new Set(rows.flatMap((row) => Object.keys(row.judged_parts ?? {})))];
  const weightless = weightlessParts(result);
  return [
    [heldOutTitle(result), scoreOf],
    ...parts.map((name): [string, Measure] => [
      weightless.has(name) ? `${name} (the judge gives it no weight)` : name,
      (row) => row.judged_parts?.[name] ?? null,
    ]),
    ["answer tokens", ({ tokens }) => tokens],
    ["distinct words", distinctWords],
  ];
}

/** Parts of weight 0: measured beside the judge, and not seen by it. */
function weightlessParts({ settings }: RunResult): Set<string> {
  const functions = isObject(settings.judge) ? settings.judge.functions : null;
  if (!Array.isArray(functions)) return new Set();
  return new Set(functions.flatMap((part) => (isObject(part) && part.weight === 0 ? [String(part.name)] : [])));
}

function verdictOf({ mean, low, high }: Estimate): string {
  if (low === null || high === null) return "–";
  if (low <= 0 && high >= 0) return "within its interval";
  const way = mean > 0 ? "up" : "down";
  const half = (high - low) / 2;
  return half === 0 ? `${way} on every prompt alike` : `${way} by ${(Math.abs(mean) / half).toFixed(1)} intervals`;
}

function changesHtml(run: Run): string {
  const rows = run.result.strategies.flatMap((strategy) =>
    laterModels(strategy).flatMap(({ model, role }) => {
      const first = strategy.models[0]?.model ?? "";
      const changes = changesOf(run, strategy.name, first, model);
      return [
        [escapeHtml(`${strategy.name}: ${first} to ${model} (${role})`)],
        ...changes.map((change) => [
          change.measure,
          estimateText(change.first),
          estimateText(change.later),
          estimateText(change.difference),
          change.verdict,
        ]),
      ];
    }),
  );
  if (rows.length === 0) return "";
  const header = ["on all held-out prompts", "before", "after", "difference", "which is"];
  return `${tableHtml(header, rows)}<p class="note" style="margin-bottom:16px">Differences on the same prompts, ± a 95 % interval. What a judge rewards may be bought with what it does not see: look at length and words too.</p>`;
}

/** By the prompt's identity: runs side by side may have other held-out prompts. */
function promptHtml(result: RunResult, models: readonly ShownModel[], { prompt_id: id, prompt }: AnswerRow): string {
  const sides = models.map(({ label, rows }) => {
    const row = rows.find(({ prompt_id: own }) => own === id);
    const facts = row === undefined ? "not one of its held-out prompts" : factsOf(result, row);
    return `<div class="side"><div class="facts"><b>${escapeHtml(label)}</b> · ${escapeHtml(facts)}</div><div class="answer">${escapeHtml(row?.text ?? "")}</div></div>`;
  });
  return `<article class="card held-out"><div class="prompt">${escapeHtml(shownText(prompt))}</div><div class="answers">${sides.join("")}</div></article>`;
}

/** "34 tokens, cut off · judged score 0.62 · bullets 5.00 · quality 0.24" */
function factsOf(result: RunResult, row: AnswerRow): string {
  const parts = Object.entries(row.judged_parts ?? {}).map(([name, score]) => `${name} ${numberText(score)}`);
  const length = `${row.tokens} tokens${row.finish_reason === "length" ? ", cut off" : ""}`;
  return [length, `${heldOutTitle(result)} ${numberText(scoreOf(row))}`, ...parts].join(" · ");
}
