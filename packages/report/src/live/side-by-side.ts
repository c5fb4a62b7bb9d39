import { isDeepStrictEqual } from "node:util";
import { isObject } from "@tempora/errors";
import type { Run } from "../run-folder.ts";
import { runName } from "./live-run.ts";

/** Several runs as one whose strategies are named after their runs: every table and chart puts them side by side. */
export function sideBySide(runs: readonly Run[]): Run {
  const [first] = runs;
  if (first === undefined) throw new TypeError("no run to show");
  if (runs.length === 1) return first;
  const names = runNames(runs);
  const label = (run: number, strategy: string) => `${names[run]}: ${strategy}`;
  return {
    folder: names.join(", "),
    result: {
      ...first.result,
      status: runs.every(({ result }) => result.status !== "running") ? "finished" : "running",
      graded: runs.every(({ result }) => result.graded),
      settings: Object.fromEntries(runs.map(({ result }, index) => [names[index] as string, result.settings])),
      strategies: runs.flatMap(({ result }, index) =>
        result.strategies.map((strategy) => ({ ...strategy, name: label(index, strategy.name) })),
      ),
    },
    events: runs.flatMap(({ events }, index) =>
      events.map((row) => ({ ...row, strategy: row.strategy === null ? null : label(index, row.strategy) })),
    ),
    pairs: runs.flatMap(({ pairs }, index) =>
      pairs.map((phase) => ({ ...phase, strategy: label(index, phase.strategy) })),
    ),
    // Answers stand beside each other under one prompt: where the runs were asked other prompts, they cannot.
    answers: !samePrompts(runs)
      ? []
      : runs.flatMap(({ answers }, index) => answers.map((own) => ({ ...own, strategy: label(index, own.strategy) }))),
  };
}

function samePrompts(runs: readonly Run[]): boolean {
  const prompts = runs.map(({ answers }) => answers[0]?.rows.map(({ prompt }) => prompt));
  return prompts.every((own) => isDeepStrictEqual(own, prompts[0]));
}

/** The folders' names; whole paths where two are called the same. */
function runNames(runs: readonly Run[]): string[] {
  const names = runs.map(({ folder }) => runName(folder));
  return new Set(names).size === names.length ? names : runs.map(({ folder }) => folder);
}

export interface SettingDifference {
  /** "loss.beta" */
  setting: string;
  /** JSON, one a run; "–" where the run does not have it or does not say yet. */
  values: string[];
}

export interface SettingDifferences {
  /** Of the runs. */
  names: string[];
  rows: SettingDifference[];
}

/** Settings that are not the same in all runs. The run's own name and place are no settings. */
export function settingDifferences(runs: readonly Run[]): SettingDifferences {
  const flat = runs.map(({ result }) => new Map(leaves(result.settings, "")));
  const settings = [...new Set(flat.flatMap((values) => [...values.keys()]))];
  const rows = settings.flatMap((setting) => {
    const values = flat.map((own) => own.get(setting));
    if (values.every((value) => isDeepStrictEqual(value, values[0]))) return [];
    return [{ setting, values: values.map((value) => (value === undefined ? "–" : JSON.stringify(value))) }];
  });
  return { names: runNames(runs), rows };
}

function leaves(value: unknown, path: string): [string, unknown][] {
  if (!isObject(value)) return [[path, value]];
  return Object.entries(value).flatMap(([key, inner]) => leaves(inner, path === "" ? key : `${path}.${key}`));
}
