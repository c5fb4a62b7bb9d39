import type { RunResult, StrategyResult } from "@tempora/run";
import { shownText } from "@tempora/text";
import { type Alarm, alarmsOf } from "./alarms.ts";
import { answersHtml } from "./answers.ts";
import type { Chart } from "./charts.ts";
import { escapeHtml, tableHtml } from "./html.ts";
import type { SettingDifferences } from "./live/side-by-side.ts";
import {
  countText,
  estimateText,
  heldOutTitle,
  leftOutNotes,
  modelSummaries,
  numberText,
  pairNotes,
  percentText,
  shareText,
  winRateTitle,
} from "./numbers.ts";
import type { PhasePairs, Run } from "./run-folder.ts";

export interface PageSide {
  text: string;
  score: number;
  trueScore: number | null;
  role: string;
  model: string;
}

export interface PagePair {
  strategy: string;
  iteration: number;
  phase: number;
  prompt: string;
  chosen: PageSide;
  rejected: PageSide;
}

/** Pairs in the form that the page lists. */
export function pagePairs(phases: readonly PhasePairs[]): PagePair[] {
  return phases.flatMap(({ strategy, iteration, phase, rows }) =>
    rows.map((row) => ({
      strategy,
      iteration,
      phase,
      prompt: shownText(row.prompt),
      chosen: {
        text: shownText(row.chosen),
        score: row.chosen_score,
        trueScore: row.chosen_true_score,
        role: row.chosen_role,
        model: row.chosen_model,
      },
      rejected: {
        text: shownText(row.rejected),
        score: row.rejected_score,
        trueScore: row.rejected_true_score,
        role: row.rejected_role,
        model: row.rejected_model,
      },
    })),
  );
}

/** JSON that may stand in a script element: no "<" can end the element or open a comment. */
export function scriptJson(value: unknown): string {
  return JSON.stringify(value).replaceAll("<", "\\u003c");
}

const sections: { id: Chart["section"]; title: string }[] = [
  { id: "result", title: "Result" },
  { id: "pairs", title: "What the pairs teach" },
  { id: "training", title: "Training" },
  { id: "judge", title: "The judge" },
];

/**
 * The page without its scripts: tables are in the HTML, charts and pairs are drawn from the data. What an open page
 * replaces when its run goes on is marked by data-part.
 */
export function bodyHtml(
  name: string,
  run: Run,
  charts: readonly Chart[],
  differences: SettingDifferences | null,
): string {
  const { result, events } = run;
  const shown = sections.map((section) => {
    const own = charts.filter((chart) => chart.section === section.id);
    const table = section.id === "result" ? resultTable(result) : section.id === "judge" ? judgeTable(result) : "";
    return `<h2 id="${section.id}">${section.title}</h2>${part(`${section.id}-table`, table)}${part(`${section.id}-charts`, `<div class="charts">${own.map(chartHtml).join("")}</div>`)}`;
  });
  const hashes = { code: result.codeVersion, M0: result.start.checkpointHash };
  const known = Object.entries(hashes).filter(([, hash]) => hash !== "");
  const footer = escapeHtml(["Tempora", ...known.map(([of, hash]) => `${of} ${hash.slice(0, 12)}`)].join(" · "));
  return `${headerHtml(name, result)}<main><div id="live" class="card" hidden></div>${part("failure", failureHtml(result))}${part("alarms", alarmsHtml(alarmsOf(result, events)))}${part("differences", differencesHtml(differences))}${shown.join("")}
<h2 id="ledger">Ledger</h2>${part("ledger", ledgerTable(result))}
<h2 id="answers">Answers</h2>${part("answers", answersHtml(run))}
<h2 id="browse">Pairs</h2>${browserHtml()}
<h2 id="settings">Settings</h2><details class="card"><summary>Every setting of this run</summary>${part("settings", `<pre>${escapeHtml(JSON.stringify(result.settings, null, 2))}</pre>`)}</details>
<p id="chart-keys" class="unseen">Arrow keys walk over a chart's points, digits show and hide its series, Escape leaves it.</p><div id="chart-point" class="unseen" aria-live="polite"></div>
<footer>${part("footer", footer)}</footer></main>`;
}

const part = (name: string, html: string) => `<div data-part="${name}">${html}</div>`;

function failureHtml({ failure }: RunResult): string {
  if (failure === undefined) return "";
  return `<section class="card alarms" role="alert"><h3>The run ended early</h3><p>${escapeHtml(failure)}</p></section>`;
}

function alarmsHtml(alarms: readonly Alarm[]): string {
  if (alarms.length === 0) return "";
  const items = alarms.map(
    ({ strategy, what, remedy }) =>
      `<li><b>${escapeHtml(strategy)}</b> ${escapeHtml(what)} <span class="soft">${escapeHtml(remedy)}</span></li>`,
  );
  return `<section class="card alarms" role="status" aria-label="Alarms"><h3>Worth a look</h3><ul>${items.join("")}</ul></section>`;
}

function differencesHtml(differences: SettingDifferences | null): string {
  if (differences === null) return "";
  const { names, rows } = differences;
  const shown =
    rows.length === 0 ? [["none", ...names.map(() => "")]] : rows.map((row) => [row.setting, ...row.values]);
  return `<h2 id="differences">Settings that differ</h2>${tableHtml(["setting", ...names], shown)}`;
}

function headerHtml(name: string, result: RunResult): string {
  const { device, start } = result;
  const facts = [
    result.strategies.map((strategy) => strategy.name).join(" and "),
    ...(device.name === "" ? [] : [`${countText(start.parameters)} parameters`, `${device.dtype} on ${device.name}`]),
    ...(result.status === "running" ? ["still running"] : []),
  ];
  const links = [...sections.map(({ id }) => id), "ledger", "answers", "browse"];
  const nav = links.map((id) => `<a href="#${id}">${id === "browse" ? "browse pairs" : id}</a>`).join("");
  return `<header><div><h1>${escapeHtml(name)}</h1><span class="soft" data-part="facts">${escapeHtml(facts.filter((fact) => fact !== "").join(" · "))}</span><span class="spacer"></span><nav>${nav}<button id="theme" type="button" aria-label="Switch between light and dark">◐</button></nav></div></header>`;
}

function chartHtml(chart: Chart): string {
  return `<figure class="card" style="margin:0"><h3>${escapeHtml(chart.title)}</h3><p class="note">${escapeHtml(chart.note)}</p><div class="chart" id="chart-${chart.id}" tabindex="0" role="application" aria-roledescription="chart" aria-label="${escapeHtml(chart.title)}" aria-describedby="chart-keys"></div></figure>`;
}

function groupRow(strategy: StrategyResult, index: number): string[] {
  const ended =
    strategy.stopped === undefined ? "" : ` <span class="ended">ended early: ${escapeHtml(strategy.stopped)}</span>`;
  return [`<span class="dot" style="background:var(--s${index % 4})"></span>${escapeHtml(strategy.name)}${ended}`];
}

function resultTable(result: RunResult): string {
  const header = [
    "model",
    heldOutTitle(result),
    winRateTitle(result),
    "length-controlled",
    "score gap",
    "cosine",
    "pairs",
    "answers cut off",
    "answer tokens",
    "tokens",
    "FLOPs",
  ];
  const rows = result.strategies.flatMap((strategy, index) => [
    groupRow(strategy, index),
    ...modelSummaries(strategy).map((model) => [
      model.best ? `${model.model} (best)` : model.model,
      estimateText(model.heldOutScore),
      shareText(model.winRate),
      shareText(model.lengthControlledWinRate),
      estimateText(model.scoreGap),
      estimateText(model.cosine, 3),
      model.pairs === null ? "–" : `${model.pairs}`,
      percentText(model.cutOff),
      numberText(model.answerLength, 1),
      countText(model.tokens),
      countText(model.flops),
    ]),
  ]);
  const notes = [...leftOutNotes(result), ...pairNotes(result)].map(
    (note) => `<p class="note">${escapeHtml(note)}</p>`,
  );
  return `${tableHtml(header, rows)}${notes.join("")}`;
}

function judgeTable(result: RunResult): string {
  const header = [
    "judge",
    "judgements",
    "no score",
    "mean",
    "variance",
    "most frequent",
    "ties",
    "on its answers",
    "Spearman with truth",
    "on own answers",
  ];
  const rows = result.strategies.flatMap((strategy, index) => [
    groupRow(strategy, index),
    ...strategy.models.map(({ model, judge }) => [
      model,
      `${judge.judgements}`,
      percentText(judge.failureRate),
      numberText(judge.mean),
      numberText(judge.variance),
      percentText(judge.equalShare),
      percentText(judge.tieRate),
      percentText(judge.mass),
      numberText(judge.spearman),
      numberText(judge.spearmanOwn),
    ]),
  ]);
  return tableHtml(header, rows);
}

function ledgerTable(result: RunResult): string {
  const header = ["stage", "prompt tokens", "generated", "judged", "scored", "trained", "billed", "FLOPs"];
  type Cost = Pick<StrategyResult, "totals">["totals"];
  const cells = (label: string, cost: Cost) => [
    label,
    ...[
      cost.promptTokens,
      cost.generatedTokens,
      cost.judgedTokens,
      cost.scoredTokens,
      cost.trainedTokens,
      cost.billedPromptTokens + cost.billedTokens,
      cost.flops,
    ].map(countText),
  ];
  const rows = result.strategies.flatMap((strategy, index) => [
    groupRow(strategy, index),
    ...strategy.iterations.flatMap(({ ledger }) =>
      ledger.map((entry) => cells(`${entry.iteration} · ${entry.stage} · ${entry.label}`, entry)),
    ),
    cells("total", strategy.totals),
  ]);
  return tableHtml(header, rows);
}

function browserHtml(): string {
  const select = (id: string, all: string) =>
    `<select id="${id}" aria-label="${all}"><option value="">${all}</option></select>`;
  return `<div class="filters">${select("pair-strategy", "all strategies")}${select("pair-iteration", "all iterations")}${select("pair-phase", "all phases")}${select("pair-roles", "all roles")}
<select id="pair-order" aria-label="order"><option value="">in order</option><option value="small">smallest gap first</option><option value="large">largest gap first</option></select>
<input id="pair-search" type="search" placeholder="search in prompts and answers"></div>
<div class="filters pager"><button id="pair-before" type="button">← before</button><span id="pair-page"></span><button id="pair-after" type="button">next →</button><span id="pair-count" class="soft"></span></div>
<div id="pair-list"></div>`;
}
