import { join } from "node:path";
import { interval95 } from "@tempora/preferences";
import { writeJson } from "@tempora/text";
import { type RunOutcome, runLoop } from "./loop/loop.ts";
import type { RunChoices } from "./loop/run-folder.ts";
import { type Observer, silentObserver } from "./results/observer.ts";
import type { ModelResult, RunResult, StrategyResult, StudyResult } from "./results/results.ts";
import type { ParsedConfig } from "./settings/config.ts";

export interface StudyOptions extends RunChoices {
  config: ParsedConfig;
  /** Number of seeds; the first is the settings' seed, the others follow it. */
  seeds: number;
  observer?: Observer;
  signal?: AbortSignal | undefined;
}

export interface StudyOutcome {
  /** <runs>/<run>: study.json and a run folder seed-<n> for each seed. */
  folder: string;
  study: StudyResult;
  outcomes: RunOutcome[];
}

type Row = StudyResult["rows"][number];

/** The same run with several seeds (data, weights, samples, order), and the means of what came out with 95 % intervals. */
export async function studySeeds(options: StudyOptions): Promise<StudyOutcome> {
  const { config, observer = silentObserver, signal, overwrite, keepStages } = options;
  const folder = join(config.runs, config.run);
  const seeds = Array.from({ length: options.seeds }, (_, k) => config.settings.seed + k);
  const outcomes: RunOutcome[] = [];
  for (const [k, seed] of seeds.entries()) {
    observer.note(`Seed ${seed}, ${k + 1} of ${seeds.length}`);
    const settings = { ...config.settings, seed };
    // The runs share the store of the other runs: each seed's stages are keyed apart by themselves.
    const run = join(config.run, `seed-${seed}`);
    outcomes.push(await runLoop({ config: { ...config, settings, run }, observer, signal, overwrite, keepStages }));
  }
  const study: StudyResult = {
    format: 1,
    seeds,
    runs: seeds.map((seed) => `seed-${seed}`),
    rows: studyRows(outcomes.map(({ result }) => result)),
  };
  await writeJson(join(folder, "study.json"), study);
  return { folder, study, outcomes };
}

/** One row for each strategy, model and measure that every seed has. Baselines may differ in length: "last" is their end. */
export function studyRows(results: readonly RunResult[]): Row[] {
  const [first] = results;
  if (first === undefined) return [];
  return first.strategies.flatMap((strategy, index) => {
    const all = results.map((result) => result.strategies[index] as StrategyResult);
    const shortest = Math.min(...all.map(({ models }) => models.length));
    const models = strategy.models.slice(0, shortest).flatMap(({ model }, k) =>
      modelRows(
        strategy.name,
        model,
        all.map(({ models: list }) => list[k] as ModelResult),
      ),
    );
    const last = modelRows(
      strategy.name,
      "last",
      all.map(({ models: list }) => list[list.length - 1] as ModelResult),
    );
    return [...models, ...last, ...pairRows(strategy.name, all, shortest - 1)];
  });
}

function modelRows(strategy: string, model: string, list: readonly ModelResult[]): Row[] {
  return [
    row(
      strategy,
      model,
      "true score",
      list.map(({ trueScore }) => trueScore?.mean ?? null),
    ),
    // Where no program knows the true score: what the run's one judge says of every model.
    row(
      strategy,
      model,
      "judged score",
      list.map(({ trueScore, heldOutScore }) => (trueScore === null ? heldOutScore.mean : null)),
    ),
    row(
      strategy,
      model,
      "win rate",
      list.map(({ winRate }) => winRate?.mean ?? null),
    ),
    row(
      strategy,
      model,
      "judge spearman",
      list.map(({ judge }) => judge.spearman),
    ),
    row(
      strategy,
      model,
      "judge spearman, own answers",
      list.map(({ judge }) => judge.spearmanOwn),
    ),
  ].flat();
}

/** Of the pairs that train each next model, and the compute of the whole strategy. */
function pairRows(strategy: string, all: readonly StrategyResult[], iterations: number): Row[] {
  const rows: Row[] = [];
  for (let k = 0; k < iterations; k++) {
    const last = all.map(({ iterations: list }) => list[k]?.phases.at(-1));
    const model = `M${k + 1}`;
    rows.push(
      ...row(
        strategy,
        model,
        "score gap",
        last.map((phase) => phase?.scoreGap.mean ?? null),
      ),
    );
    rows.push(
      ...row(
        strategy,
        model,
        "cosine",
        last.map((phase) => phase?.cosine.mean ?? null),
      ),
    );
  }
  return [
    ...rows,
    ...row(
      strategy,
      "last",
      "flops",
      all.map(({ totals }) => totals.flops),
    ),
  ];
}

/** Nothing where a seed lacks the measure. */
function row(strategy: string, model: string, measure: Row["measure"], values: readonly (number | null)[]): Row[] {
  const known = values.filter((value): value is number => value !== null && Number.isFinite(value));
  if (known.length < values.length) return [];
  return [{ strategy, model, measure, values: known, estimate: interval95(known) }];
}
