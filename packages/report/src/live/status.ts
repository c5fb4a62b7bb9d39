import type { LiveStage, LiveState } from "@tempora/run";
import { escapeHtml } from "../html.ts";
import { bytesText, countText } from "../numbers.ts";

/** Milliseconds after which a run that tells nothing was stopped, or its machine sleeps: it tells something every second. */
const silence = 30_000;

/** The stages that a run is in, with what they tell; its memory, its last note, and the answers that it sampled last. */
export function statusHtml(name: string, { at, stages, notes, memory, answers }: LiveState, now = Date.now()): string {
  const heading = name === "" ? "" : `<h3>${escapeHtml(name)}</h3>`;
  if (now - at > silence) {
    const when = new Date(at).toISOString().slice(0, 19).replace("T", " ");
    return (
      heading +
      noteHtml(`Nothing was heard of this run since ${when} UTC: it was stopped. It goes on when it is started again.`)
    );
  }
  const shown = stages.map((stage) => `<div class="stage">${stageHtml(stage)}</div>`);
  const said = [`memory ${bytesText(memory)}`, ...notes].map(noteHtml);
  return [heading, ...shown, ...said, answersHtml(answers)].join("");
}

export const noteHtml = (text: string) => `<p class="note">${escapeHtml(text)}</p>`;

function answersHtml(answers: LiveState["answers"]): string {
  if (answers.length === 0) return "";
  const items = answers.map(
    ({ model, prompt, text }) =>
      `<li><div class="prompt">${escapeHtml(prompt)}</div><div class="answer"><b>${escapeHtml(model)}</b> ${escapeHtml(text)}</div></li>`,
  );
  return `<div class="sampled"><h3>Sampled last</h3><ul>${items.join("")}</ul></div>`;
}

function stageHtml({ label, done, total, unit, left, figures }: LiveStage): string {
  const known = total > 0;
  const facts = [
    known ? `${done} of ${total} ${unit} (${Math.floor((100 * done) / total)} %)` : `${done} ${unit}`,
    ...(left === null ? [] : [`${durationText(left)} left`]),
    ...Object.entries(figures).map(([name, value]) =>
      name.endsWith("/s") ? `${figureText(value)} ${name}` : `${name} ${figureText(value)}`,
    ),
  ];
  const bar = known ? `<progress max="${total}" value="${done}" aria-label="${escapeHtml(label)}"></progress>` : "";
  return `<b>${escapeHtml(label)}</b> ${bar} <span class="soft">${escapeHtml(facts.join(" · "))}</span>`;
}

const figureText = (value: number) =>
  Math.abs(value) >= 999.5 ? countText(value) : Number.isInteger(value) ? `${value}` : value.toPrecision(3);

/** "42 s", "3 min", "2 h 5 min" */
function durationText(seconds: number): string {
  if (seconds < 90) return `${Math.ceil(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}
