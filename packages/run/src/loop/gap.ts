import { interval95 } from "@tempora/preferences";
import type { Response } from "../judges/judge.ts";
import type { ModelRef } from "../models/model-ref.ts";
import type { Estimate, PhaseResult } from "../results/results.ts";
import type { Task } from "../sources/source.ts";
import type { Position, RunContext } from "../stages/context.ts";
import { secondOpinionStage } from "../stages/judge.ts";
import { responseTo } from "./pools.ts";

/** The two answers of a pair, as a judge reads them. */
export interface PairTexts {
  /** Index into the tasks. */
  task: number;
  chosen: string;
  rejected: string;
}

export interface GapPlan {
  judge: ModelRef;
  tasks: readonly Task[];
  pairs: readonly PairTexts[];
  /** By the scores that picked the pairs. */
  picked: Estimate;
  position: Position;
}

/**
 * The gap between chosen and rejected by judgements that did not pick them: the highest of several noisy scores is high
 * by luck too, and the lowest low, so the scores that picked a pair overstate it. It is measured, not paid for by the
 * strategy: no ledger counts it.
 */
export async function measuredGap(
  context: RunContext,
  { judge, tasks, pairs, picked, position }: GapPlan,
): Promise<Pick<PhaseResult, "scoreGap" | "gapBy" | "pickedGap">> {
  const responses = new PairResponses(tasks);
  const sides = pairs.map(({ task, chosen, rejected }) => [responses.add(task, chosen), responses.add(task, rejected)]);
  const label = `pairs of iteration ${position.iteration}`;
  const second = await secondOpinionStage(context, { judge, responses: responses.list, label, position });
  const own = { scoreGap: picked, gapBy: "scores that picked the pair", pickedGap: picked } as const;
  if (second === null) return own;
  const gaps = sides.flatMap(([chosen = -1, rejected = -1]) => {
    const [high, low] = [second.scores[chosen] ?? null, second.scores[rejected] ?? null];
    return high === null || low === null ? [] : [high - low];
  });
  return gaps.length === 0 ? own : { scoreGap: interval95(gaps), gapBy: second.source, pickedGap: picked };
}

/** Every answer of the pairs once. */
class PairResponses {
  readonly list: Response[] = [];
  readonly #indices = new Map<string, number>();

  constructor(readonly tasks: readonly Task[]) {}

  add(task: number, text: string): number {
    const key = `${task}:${text}`;
    const known = this.#indices.get(key);
    if (known !== undefined) return known;
    const index = this.list.push(responseTo(this.tasks[task] as Task, text)) - 1;
    this.#indices.set(key, index);
    return index;
  }
}
