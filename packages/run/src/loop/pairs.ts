import {
  interval95,
  noSelection,
  type PhaseRule,
  type Pools,
  type SelectedPair,
  type SelectionCounts,
  type SelectionSettings,
  selectPairs,
  truncationWarning,
} from "@tempora/preferences";
import { type Tokenizer, writeJsonl } from "@tempora/text";
import type { PairIds } from "@tempora/training";
import { pairColumns } from "../results/pair-columns.ts";
import type { Estimate, PairRow, PhaseResult, PoolRole } from "../results/results.ts";
import { textGivesIds } from "../sources/conversation.ts";
import { type PairSet, pairSet } from "../stages/pair-set.ts";
import { StrategyEnded } from "../stages/strategy-ended.ts";
import type { PairTexts } from "./gap.ts";
import type { Candidate, Pool } from "./pools.ts";

export interface PairsPlan {
  strategy: string;
  iteration: number;
  rule: PhaseRule;
  phase: number;
  pools: ReadonlyMap<PoolRole, Pool>;
  tokenizer: Tokenizer;
  /** What a chat template that asks for the date was told. */
  now: Date;
  selection: SelectionSettings;
  /** Where the pairs are written for people. */
  file: string;
  note(text: string): void;
}

/** The pairs of a phase as they are trained on, and what the result says of them. */
export interface FormedPairs
  extends Pick<
    PhaseResult,
    | "dropped"
    | "answers"
    | "truncated"
    | "textDiffers"
    | "chosenRoles"
    | "rejectedRoles"
    | "trueGap"
    | "chosenLength"
    | "rejectedLength"
  > {
  pairs: PairSet;
  texts: PairTexts[];
  /** By the scores that picked the pairs. */
  picked: Estimate;
}

/**
 * Selects the pairs of a phase prompt by prompt, writes the file for people and gives the ids for the training: what was
 * sampled, never what its text would give. Throws StrategyEnded with the counts when no prompt has a pair.
 */
export async function formPairs(plan: PairsPlan): Promise<FormedPairs> {
  const counts = noSelection();
  const figures = new PairFigures();
  const pairs: PairIds[] = [];
  const texts: PairTexts[] = [];
  const empty = { count: 0 };
  async function* rows(): AsyncGenerator<PairRow> {
    for await (const pair of selectPairs(plan.rule, promptPools(plan.pools, empty), plan.selection, counts)) {
      const row = pairRow(plan, pair);
      figures.add(row, pair);
      texts.push({ task: pair.prompt, chosen: pair.chosen.row.text, rejected: pair.rejected.row.text });
      pairs.push({
        promptIds: pair.chosen.promptIds,
        chosenIds: pair.chosen.row.ids,
        rejectedIds: pair.rejected.row.ids,
        where: { file: plan.file, row: pairs.length + 1 },
      });
      yield row;
    }
  }
  await writeJsonl(plan.file, rows());
  if (pairs.length === 0) throw noPairs(plan, counts, empty.count);
  const warning = truncationWarning(counts, plan.selection);
  if (warning !== null) plan.note(`${plan.strategy} ${plan.iteration}: ${warning} (selection.truncated).`);
  const { dropped, answers, truncated } = counts;
  return { pairs: pairSet(pairs), texts, dropped, answers, truncated, ...figures.result() };
}

/** The pools of prompt after prompt, all read side by side. A pool that stands for two roles is read once. */
async function* promptPools(
  pools: ReadonlyMap<PoolRole, Pool>,
  empty: { count: number },
): AsyncGenerator<{ prompt: number; pools: Pools<Candidate> }> {
  const readers = new Map([...new Set(pools.values())].map((pool) => [pool, pool.byTask()]));
  try {
    for (let prompt = 0; ; prompt++) {
      const lists = new Map<Pool, Candidate[]>();
      for (const [pool, reader] of readers) {
        const next = await reader.next();
        if (next.done === true) return;
        lists.set(pool, next.value);
        empty.count += next.value.filter(({ text }) => text.trim() === "").length;
      }
      const byRole = [...pools].map(([role, pool]) => [role, lists.get(pool) ?? []] as const);
      yield { prompt, pools: Object.fromEntries(byRole) };
    }
  } finally {
    for (const reader of readers.values()) await reader.return(undefined);
  }
}

function pairRow(plan: PairsPlan, { chosen, rejected }: SelectedPair<Candidate>): PairRow {
  const side = ({ promptIds, variables, row, score, truncated }: SelectedPair<Candidate>["chosen"]) => {
    const { prompt, text, ids } = row;
    const answer = { promptIds, ids, text, ended: !truncated };
    const textDiffers = !textGivesIds({ prompt, variables }, answer, plan.tokenizer, plan.now);
    return { text, ids, score, textDiffers };
  };
  const { promptIds: ids, variables } = chosen;
  const prompt = { conversation: chosen.row.prompt, variables, ids };
  return {
    ...pairColumns(prompt, side(chosen), side(rejected), plan.phase),
    prompt_id: chosen.row.prompt_id,
    iteration: plan.iteration,
    chosen_role: chosen.row.role,
    rejected_role: rejected.row.role,
    chosen_model: chosen.row.model,
    rejected_model: rejected.row.model,
    chosen_id: chosen.row.id,
    rejected_id: rejected.row.id,
    chosen_true_score: chosen.row.true_score,
    rejected_true_score: rejected.row.true_score,
  };
}

/** What the result says of a phase's pairs, gathered pair by pair. */
class PairFigures {
  #textDiffers = 0;
  readonly #roles = { chosen: new Map<PoolRole, number>(), rejected: new Map<PoolRole, number>() };
  readonly #gaps: number[] = [];
  readonly #trueGaps: number[] = [];
  #chosenTokens = 0;
  #rejectedTokens = 0;

  add(row: PairRow, { chosen, rejected }: SelectedPair<Candidate>): void {
    if (row.text_differs === true) this.#textDiffers++;
    count(this.#roles.chosen, row.chosen_role);
    count(this.#roles.rejected, row.rejected_role);
    this.#gaps.push(row.chosen_score - row.rejected_score);
    const [better, worse] = [row.chosen_true_score, row.rejected_true_score];
    if (better !== null && worse !== null) this.#trueGaps.push(better - worse);
    this.#chosenTokens += chosen.length;
    this.#rejectedTokens += rejected.length;
  }

  result() {
    const pairs = this.#gaps.length;
    return {
      textDiffers: this.#textDiffers,
      chosenRoles: Object.fromEntries(this.#roles.chosen),
      rejectedRoles: Object.fromEntries(this.#roles.rejected),
      picked: interval95(this.#gaps),
      trueGap: this.#trueGaps.length === 0 ? null : interval95(this.#trueGaps),
      chosenLength: this.#chosenTokens / pairs,
      rejectedLength: this.#rejectedTokens / pairs,
    };
  }
}

function count(roles: Map<PoolRole, number>, role: PoolRole): void {
  roles.set(role, (roles.get(role) ?? 0) + 1);
}

function noPairs({ strategy, iteration }: PairsPlan, counts: SelectionCounts, empty: number): StrategyEnded {
  const { answers, truncated } = counts;
  const reasons = Object.entries(counts.dropped)
    .filter(([, number]) => number > 0)
    .map(([reason, number]) => `${reason} ${number}`);
  const emptyText = empty === 0 ? "" : `; ${empty} of ${answers} answers are empty`;
  return new StrategyEnded(`Iteration ${iteration} of ${strategy} has no pairs (${reasons.join(", ")}${emptyText})`, {
    remedy: remedy({ empty: 2 * empty > answers, truncated: 2 * truncated > answers }),
  });
}

function remedy(mostly: { empty: boolean; truncated: boolean }): string {
  if (mostly.empty) {
    return "The model does not answer these prompts: train it on demonstrations first, or use prompts of the kind that it knows.";
  }
  if (mostly.truncated) {
    return 'Most answers are cut off by length: allow more new tokens (sampling.maxNewTokens), or set selection.truncated to "keep".';
  }
  return "Sample more candidates or judgements, raise the temperature, or use prompts that the model answers unevenly.";
}
