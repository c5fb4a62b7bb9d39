import { escapeHtml } from "../html.ts";
import { countText } from "../numbers.ts";
import type { ShownStage } from "./progress-log.ts";

/** The stages that run now, with what they tell; notes; the memory of the process in bytes. */
export function statusHtml(stages: readonly ShownStage[], notes: readonly string[], memory?: number): string {
  const shown = stages.map((stage) => `<div class="stage">${stageHtml(stage)}</div>`);
  if (memory !== undefined) shown.push(`<p class="note">memory ${countText(memory)}B</p>`);
  for (const note of notes) shown.push(`<p class="note">${escapeHtml(note)}</p>`);
  return shown.join("");
}

function stageHtml({ label, done, total, unit, left, figures }: ShownStage): string {
  const known = total > 0;
  const facts = [
    known ? `${done} of ${total} ${unit}` : `${done} ${unit}`,
    ...(left === null ? [] : [`${durationText(left)} left`]),
    ...Object.entries(figures).map(([name, value]) => `${name} ${figureText(value)}`),
  ];
  const bar = known ? `<progress max="${total}" value="${done}" aria-label="${escapeHtml(label)}"></progress>` : "";
  return `<b>${escapeHtml(label)}</b> ${bar} <span class="soft">${escapeHtml(facts.join(" · "))}</span>`;
}

const figureText = (value: number) =>
  Math.abs(value) >= 1000 ? countText(value) : Number.isInteger(value) ? `${value}` : value.toPrecision(3);

/** "42 s", "3 min", "2 h 5 min" */
function durationText(seconds: number): string {
  if (seconds < 90) return `${Math.ceil(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}
